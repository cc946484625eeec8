"""What cannot be read is named by every command that reads runs; none goes on as if nothing were there, none falls."""

import os
import shutil

import pytest

from analysis import rank, report
from flowzoo.runs.store import Run
from sweeps.__main__ import main
from sweeps.definition import Sweep
from sweeps.manifest import Manifest
from sweeps.plan import plan_of

ROW = {"weights": "ema", "rule": "recombine", "grid": "common", "shift": 1.0, "guidance": 5.0, "fid": 1.0, "clip": 0.2}


@pytest.fixture(scope="module")
def plan() -> Manifest:
    return plan_of(Sweep("x", ["rf", "eps/linear", "v/cos"]), ["evaluation.settings=[{steps: 50, guidance: 5}]"])


@pytest.fixture
def runs(plan, tmp_path, monkeypatch) -> list[Run]:
    """Three runs that are done, for one of which something will be put out of reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeps.retry.run_here", lambda *_: 0)
    plan.write()
    made = [Run.create(planned.cfg) for planned in plan.runs]
    for run, planned in zip(made, plan.runs, strict=True):
        run.set_status("done", step=planned.steps, steps=planned.steps)
        cells = {"variant": planned.variant, "dataset": planned.dataset, "backbone": planned.backbone, "seed": 0}
        weights = planned.config["evaluation"]["weights"]
        run.write_rows([{**ROW, **cells, "run": planned.id, "steps": 50, "weights": kind} for kind in weights])
    return made


COMMANDS = {
    "status": lambda: main(["status", "runs/x"]),
    "check": lambda: main(["check", "runs/x"]),
    "retry": lambda: main(["retry", "runs/x", "--unfinished"]),
    "rank": lambda: rank.main(["runs/x"]),
    "report": lambda: report.main(["runs/x", "-o", "out"]),
}


def replaced(path, kind: str) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path.name, "link to nothing": "gone"}[kind])


@pytest.mark.parametrize("command", COMMANDS)
def test_whole_runs_are_read_without_a_word(runs, command, capsys) -> None:
    assert COMMANDS[command]() == 0
    assert "cannot read" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["folder", "loop", "link to nothing", "pipe"])
@pytest.mark.parametrize("name", ["status.json", "config.yaml", "results.csv", "metrics.jsonl"])
def test_a_file_that_cannot_be_read_is_named(runs, command, kind, name, capsys) -> None:
    replaced(path := runs[1].path / name, kind)
    mended = (command, name) == ("retry", "status.json") and kind != "folder"  # a new status takes a link's place
    assert COMMANDS[command]() == (0 if mended else 1)
    assert str(path) in "".join(capsys.readouterr()).replace("\n", "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["file", "loop", "link to nothing"])
def test_a_run_folder_that_cannot_be_read_is_named(runs, command, kind, capsys) -> None:
    replaced(runs[1].path, kind)
    assert COMMANDS[command]() == 1
    assert str(runs[1].path) in "".join(capsys.readouterr()).replace("\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_bytes_that_are_no_text_are_named(runs, command, capsys) -> None:
    (runs[1].path / "results.csv").write_bytes(b"variant,fid,clip\n\xff,1,1\n")
    assert COMMANDS[command]() == 1
    assert str(runs[1].path / "results.csv") in "".join(capsys.readouterr())


def test_a_run_whose_status_cannot_be_read_is_not_ranked(runs, capsys) -> None:
    (runs[1].path / "status.json").write_text('{"state": "do')
    assert COMMANDS["rank"]() == 1
    out, err = capsys.readouterr()
    assert "eps/linear: damaged" in out
    assert f"analysis.rank: cannot read {runs[1].path / 'status.json'}: " in err


def test_a_run_behind_a_link_stands_and_ranks_as_any(runs, tmp_path, capsys) -> None:
    assert COMMANDS["rank"]() == 0
    expected = capsys.readouterr().out
    runs[1].path.rename(tmp_path / "elsewhere")
    runs[1].path.symlink_to(tmp_path / "elsewhere")
    os.symlink(".", "runs/x/loop")
    assert COMMANDS["rank"]() == 0
    assert capsys.readouterr().out == expected
    assert COMMANDS["status"]() == 0
    assert "3 runs: 3 done" in capsys.readouterr().out


def test_a_sweep_that_was_moved_is_read_where_it_lies(runs, tmp_path, capsys) -> None:
    assert COMMANDS["rank"]() == 0
    expected = capsys.readouterr().out
    (tmp_path / "else where").mkdir()
    os.rename("runs/x", "else where/b (old)")
    os.rmdir("runs")
    moved = "else where/b (old)"
    for code in (
        main(["status", moved]),
        main(["check", moved]),
        main(["retry", moved, "--all"]),
        main(["plan", moved]),
    ):
        assert code == 0
    assert f"3 of 3 runs of {moved} once more" in capsys.readouterr().out
    for run in runs:
        Run(tmp_path / moved / run.path.name).set_status("done")
    assert rank.main([moved]) == 0
    assert capsys.readouterr().out == expected
    assert report.main([moved, "-o", f"{moved}/report"]) == 0
    assert not os.path.exists("runs")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["plan.jsonl", "data.json", ".lock"])
def test_no_pipe_is_waited_for(runs, command, name, capsys) -> None:
    path = runs[1].path.parent / name if name == "plan.jsonl" else runs[1].path / name
    replaced(path, "pipe")
    COMMANDS[command]()
    assert "Traceback" not in "".join(capsys.readouterr())
