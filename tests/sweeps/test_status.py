"""What `sweeps status` prints."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from flowzoo.runs.store import Run
from sweeps import standing, status
from sweeps.__main__ import main
from sweeps.definition import Sweep
from sweeps.manifest import Manifest
from sweeps.plan import plan_of


@pytest.fixture(scope="module")
def plan() -> Manifest:
    return plan_of(Sweep("x", ["rf", "eps/linear", "v/cos"]))


@pytest.fixture
def manifest(plan, tmp_path, monkeypatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    plan.write()
    Run.create(plan.runs[0].cfg).set_status("done")
    Run.create(plan.runs[1].cfg).set_status("failed", exception="RuntimeError: out of [memory]")
    return plan


def test_the_table_has_every_run_and_the_last_line_the_counts(manifest, capsys):
    assert main(["status", "runs/x"]) == 0
    printed = capsys.readouterr().out
    assert all(planned.id in printed for planned in manifest.runs)
    assert "RuntimeError: out of [memory]" in printed
    assert printed.splitlines()[-1] == "runs/x: 3 runs: 1 queued, 1 done, 1 failed"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_note_is_never_squeezed_away(manifest, terminal):
    rows = standing.standings(manifest.folder)
    rows = [replace(row, job="12345_10 OUT_OF_MEMORY", note=row.note and f"{row.note} {'x' * 60} end") for row in rows]
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=terminal, color_system=None, soft_wrap=True)
    for part in status.fitting(rows, console):
        console.print(part)
    lines = file.getvalue().splitlines()
    assert f"{rows[1].id}: {rows[1].note}" in lines
    assert terminal or sum("12345_10 OUT_OF_MEMORY" in line for line in lines) == len(rows)


def test_json_says_the_same(manifest, capsys):
    assert main(["status", "x", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["counts"] == {"queued": 1, "done": 1, "failed": 1}
    assert [run["state"] for run in said["runs"]] == ["done", "failed", "queued"]


def test_watching_ends_when_nothing_runs_or_waits(manifest, monkeypatch, capsys):
    looks = []

    def sleep(_):
        looks.append(1)
        Run.create(manifest.runs[2].cfg).set_status("done")

    monkeypatch.setattr(status.time, "sleep", sleep)
    assert main(["status", "x", "--watch"]) == 0
    assert len(looks) == 1
    assert "2 done, 1 failed" in capsys.readouterr().out


def test_nothing_is_written_and_torch_is_not_imported(manifest, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code = (
        "import sys; from sweeps.__main__ import main; main(['status', 'x']); main(['check', 'x']);"
        "sys.exit(sorted(m for m in sys.modules if m.partition('.')[0] in ('torch', 'lightning')) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_not_there_is_one_line(manifest, capsys):
    assert main(["status", "demo"]) == 2
    assert capsys.readouterr().err.startswith("sweeps: there is no folder runs/demo")


def test_swept_keys_are_told_with_a_plan_and_without(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = plan_of(Sweep("x", ["rf"], cross={"optimizer.lr": [0.001, 0.01], "backbone.depth": [2, 4]}))
    plan.write()
    for planned in plan.runs:
        Run.create(planned.cfg)
    told = {f"backbone.depth={depth}, optimizer.lr={lr}" for depth in (2, 4) for lr in ("0.001", "0.01")}
    for _ in range(2):
        assert {row.swept for row in standing.standings(plan.folder)} == told
        assert main(["status", "runs/x"]) == 0
        printed = capsys.readouterr().out
        assert all(words in printed for words in told)
        (plan.folder / "plan.jsonl").unlink(missing_ok=True)
