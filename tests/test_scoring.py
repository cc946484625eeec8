"""What scoring prints."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flowzoo.job import Setting
from flowzoo.runs.limits import GRIDS as NAMED
from flowzoo.sampling.grid import GRIDS
from flowzoo.scoring import _say_span, _say_table
from sweeps.__main__ import main

FEW = ["fid", "clip"]
SETTING = ("weights", "steps", "guidance")
MANY = [*FEW, "fid_decoded", "right_forms", "right_colours", "right_sizes", "right_places", "swd", "swd_coarse"]


def rows(columns: list[str], n: int) -> list[dict[str, Any]]:
    place = {"run": "rf-s0-1234abcd", "weights": "ema", "steps": 50, "guidance": 2.5, "seconds": 12.3}
    return [{**place, "steps": 10 + i, **dict.fromkeys(columns, 0.1 * i + 0.01)} for i in range(n)]


def printed(say: Any, *told: Any, width: int = 80) -> list[str]:
    out = io.StringIO()
    say(Console(file=out, width=width), *told)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("columns", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("width", [80, 200])
def test_a_table_is_never_cut(columns: list[str], width: int) -> None:
    lines = printed(_say_table, "title", rows(columns, 12), SETTING, columns, width=width)
    text = "\n".join(lines)
    assert "…" not in text
    assert all(len(line) <= width for line in lines)
    assert all(name in text for name in columns)
    assert all(str(10 + i) in text for i in range(12))
    assert text.count("0.0100") == len(columns)  # of the first row


def test_one_of_a_stack_is_told_by_its_name() -> None:
    (line,) = printed(_say_span, rows(FEW, 1), FEW, Setting(10, 2.5))
    assert line.startswith("rf-s0-1234abcd, ema, 10 steps, guidance 2.5: fid 0.0100, clip 0.0100, ")
    (line,) = printed(_say_span, rows(FEW, 3), FEW, Setting(10, 2.5))
    assert line.startswith("3 sets of weights, 10 steps, guidance 2.5: fid 0.0100 to 0.2100, ")


def test_the_grids_that_settings_may_name_are_those_of_the_package() -> None:
    assert {name: f"{grid.__module__}.{grid.__name__}" for name, grid in GRIDS.items()} == NAMED


def test_a_setting_on_a_grid_has_the_row_that_it_has_where_it_is_the_only_grid(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("variants: ['edm(-1.20,1.20)']\n")
    small = [
        *("trainer.steps=3", "trainer.batch_size=4", "trainer.val_samples=4", "data.source.size=100", "data.workers=0"),
        *(
            "backbone.width=64",
            "backbone.depth=1",
            "evaluation=quick",
            "evaluation.samples=8",
            "evaluation.reference=66",
        ),
        *("evaluation.batch_size=8", "evaluation.weights=[raw]", "metric=[clip]", "optimizer.lr=0.1"),
        "evaluation.settings=[{steps: 3, guidance: 1.0}, {steps: 4, guidance: 2.0}]",
    ]

    def scores(name: str, *words: str) -> dict[tuple[str, str], str]:
        assert main(["run", str(tmp_path / "one.yaml"), f"runs={tmp_path}", f"sweep={name}", *small, *words]) == 0
        (path,) = (tmp_path / name).glob("*/results.csv")
        with path.open() as file:
            return {(row["grid"], row["steps"]): row["clip"] for row in csv.DictReader(file)}

    both, path = scores("both", "evaluation.grids=[common,path]"), scores("path", "solver/grid=path")
    assert {key: clip for key, clip in both.items() if key[0] == "path"} == path
    assert list(both) == [("common", "3"), ("common", "4"), ("path", "3"), ("path", "4")]
    assert both["common", "3"] != both["path", "3"]
    assert main(["check", str(tmp_path / "both")]) == 0
