"""Parts of a plan, and what tables of raw rows have of it: a study goes on on a machine that has nothing but these."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from analysis import join
from flowzoo.runs.rows import rows_wanted
from flowzoo.runs.store import Run
from sweeps.__main__ import main
from sweeps.definition import Sweep
from sweeps.manifest import PLAN, Manifest, Planned
from sweeps.plan import plan_of

VARIANTS = ["rf", "eps/linear", "v/cos", "edm/rf", "rf/cosmap"]


@pytest.fixture(scope="module")
def plan() -> Manifest:
    return plan_of(Sweep("x", VARIANTS), ["trainer.steps=9"])


@pytest.fixture
def manifest(plan, tmp_path, monkeypatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    plan.write()
    return plan


@pytest.fixture
def trained(monkeypatch) -> list[list[str]]:
    """The ids that each `sweeps run` was to train."""
    given: list[list[str]] = []
    monkeypatch.setattr("sweeps.run.work", lambda folder, ids, execution: given.append(list(ids)) or 0)
    return given


def finish(planned: Planned, state: str = "done", settings: int | None = None) -> None:
    """A run as training and scoring leave it, with so many of its settings."""
    run = Run.create(planned.cfg)
    evaluation = planned.config["evaluation"]
    for weights, setting in rows_wanted(
        evaluation["weights"], [(s["steps"], s["guidance"]) for s in evaluation["settings"]][:settings]
    ):
        row = {"run": planned.id, "variant": planned.variant, "dataset": "shapes", "backbone": planned.backbone}
        row |= {"seed": 0, "step": 9, "weights": weights, "rule": "recombine", "grid": "common", "shift": 1.0}
        row |= {"steps": setting[0], "guidance": setting[1], "fid": 1.0, "clip": 0.2, "status": state}
        run.write_rows([row | {"protocol": "0123456789", "data": "01234567"}])
    run.set_status(state, step=9, steps=9)


def table_of(manifest: Manifest, name: str = "rows.csv.gz") -> str:
    """The runs that are there as a table; their folders are gone."""
    assert join.main([name, str(manifest.folder)]) == 0
    for planned in manifest.runs:
        shutil.rmtree(manifest.folder / planned.id, ignore_errors=True)
    return name


def kept(manifest: Manifest) -> str:
    """The plan as one commits it; the sweep's folder is gone."""
    Path("kept.jsonl.gz").write_bytes(gzip.compress((manifest.folder / PLAN).read_bytes()))
    shutil.rmtree(manifest.folder)
    return "kept.jsonl.gz"


def test_parts_are_all_of_the_plan_and_share_nothing(manifest, trained, capsys):
    ids = [planned.id for planned in manifest.runs]
    for parts in (1, 2, 3, 5):
        trained.clear()
        for part in range(1, parts + 1):
            assert main(["run", "runs/x", "--only", f"{part}/{parts}"]) == 0
        assert [id for part in trained for id in part] == ids
        assert max(map(len, trained)) - min(map(len, trained)) <= 1
    assert main(["run", "runs/x", "--only", "rf*", "--only", "5/5"]) == 0
    assert trained[-1] == [ids[0], ids[4]]
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 5 runs"


@pytest.mark.parametrize("words", ["0/2", "3/2", "1/6", "edm_cos*"])
def test_a_part_that_no_run_has_is_refused(manifest, trained, capsys, words):
    assert main(["run", "runs/x", "--only", words]) == 2
    assert capsys.readouterr().err.startswith(f"sweeps: --only {words}: ")
    assert trained == []


def test_what_a_table_has_is_neither_run_again_nor_left(manifest, trained, capsys):
    finish(manifest.runs[0])
    finish(manifest.runs[1], "diverged", 0)
    finish(manifest.runs[2], settings=3)
    table, ids = table_of(manifest), [planned.id for planned in manifest.runs]
    plan = kept(manifest)
    capsys.readouterr()
    assert main(["status", plan, "--done", table, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"queued": 3, "done": 1, "diverged": 1}
    assert [run["state"] for run in told["runs"]] == ["done", "diverged", "queued", "queued", "queued"]
    assert [run["note"] for run in told["runs"]] == [
        *("in rows.csv.gz", "in rows.csv.gz", "rows.csv.gz lacks 6 of its rows", "", "")
    ]
    assert not manifest.folder.exists()  # nothing is written
    assert main(["run", plan, "--done", table]) == 0
    assert capsys.readouterr().out == "5 of 5 runs, 2 of them finished in rows.csv.gz\n"
    assert main(["run", plan, "--done", table, "--only", "1/2", "--only", "rf_cosmap*"]) == 0
    assert trained == [ids[2:], [ids[2], ids[4]]]
    assert [run.id for run in Manifest.read(manifest.folder).runs] == ids


def test_rows_of_another_solver_are_no_rows_of_a_plan(manifest, trained, capsys):
    finish(manifest.runs[0])
    table = table_of(manifest)
    other = plan_of(Sweep("y", VARIANTS), ["trainer.steps=9", "solver/grid=path"])
    other.write()
    assert other.runs[0].id == manifest.runs[0].id
    assert main(["status", "runs/y", "--done", table]) == 0
    assert "rows.csv.gz lacks 12 of its rows" in capsys.readouterr().out
    assert main(["run", "runs/y", "--done", table]) == 0
    assert len(trained[0]) == 5


def test_several_tables_count_together(manifest, trained):
    tables = []
    for i in range(2):
        finish(manifest.runs[i])
        tables += ["--done", table_of(manifest, f"{i}.csv")]
    assert main(["run", "runs/x", *tables]) == 0
    assert trained == [[planned.id for planned in manifest.runs[2:]]]


def test_a_plan_is_frozen_wherever_it_is_kept(manifest, trained, capsys):
    plan = kept(manifest)
    assert main(["run", plan, "runs=elsewhere", "sweep=z", "trainer.log_every=3"]) == 0
    assert {planned.config["sweep"] for planned in Manifest.read("elsewhere/z").runs} == {"z"}
    assert main(["plan", plan]) == 0
    assert main(["run", plan, "trainer.steps=10"]) == 2
    assert "trainer.steps=10: kept.jsonl.gz is planned; allowed are runs=DIR" in capsys.readouterr().err
    plan_of(Sweep("x", VARIANTS[:2]), ["trainer.steps=9"]).write()
    assert main(["run", plan]) == 2
    assert "kept.jsonl.gz is not what is planned in runs/x: " in capsys.readouterr().err


def test_a_table_that_is_none_is_refused(manifest, trained, capsys):
    Path("other.csv").write_text("variant,fid\nrf,1\n")
    for name, told in (("other.csv", "lacks the column run"), ("absent.csv", "absent.csv")):
        for command in ("run", "status"):
            assert main([command, "runs/x", "--done", name]) == 2
            assert told in capsys.readouterr().err
    assert trained == []
