"""What scoring prints."""

import io
from typing import Any

import pytest
from rich.console import Console

from flowzoo.scoring import _say_span, _say_table

FEW = ["fid", "clip"]
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
    lines = printed(_say_table, "title", rows(columns, 12), columns, width=width)
    text = "\n".join(lines)
    assert "…" not in text
    assert all(len(line) <= width for line in lines)
    assert all(name in text for name in columns)
    assert all(str(10 + i) in text for i in range(12))
    assert text.count("0.0100") == len(columns)  # of the first row


def test_one_of_a_stack_is_told_by_its_name() -> None:
    (line,) = printed(_say_span, rows(FEW, 1), FEW)
    assert line.startswith("rf-s0-1234abcd, ema, 10 steps, guidance 2.5: fid 0.0100, clip 0.0100, ")
    (line,) = printed(_say_span, rows(FEW, 3), FEW)
    assert line.startswith("3 sets of weights, 10 steps, guidance 2.5: fid 0.0100 to 0.2100, ")
