"""Sweeps as jobs of a real SLURM: what fails, what is stopped, and that the same command brings it to the end."""

import json
from pathlib import Path

import pytest
from cluster import accounted, ended, wait_for
from cluster import slurm as ask

from flowzoo.runs.store import Run
from sweeps.__main__ import main
from sweeps.manifest import Manifest
from sweeps.slurm import jobs_of

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("slurm")]


def trains(folder: Path, attempt: int) -> bool:
    """Whether that attempt of a run has done its first steps."""
    run = Run(folder)
    status = run.status
    return status.get("attempt") == attempt and (status["state"] != "running" or newer_than_start(run))


def newer_than_start(run: Run) -> bool:
    path, started = run.path / "metrics.jsonl", run.path / "status.json"
    return path.exists() and path.stat().st_mtime > started.stat().st_mtime


def test_three_jobs_of_an_array_end_in_three_ways_and_go_on(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit = ["submit", str(small), f"runs={tmp_path}"]
    assert main([*submit, "cluster.partition=debug", "+cluster.sbatch.hold=true"]) == 0
    folder = tmp_path / "small"
    ids = [planned.id for planned in Manifest.read(folder).runs]
    jobs = [jobs_of(folder)[id].id for id in ids]
    array = jobs[0].split("_")[0]
    assert jobs == [f"{array}_{i}" for i in range(3)]
    assert main(submit) == 0
    assert "3 of 3 runs are in the queue already" in capsys.readouterr().out

    # what jobs run is the copy, whatever happens to the source
    (copy,) = folder.glob(".submit/*/source/flowzoo/__init__.py")
    copy.write_text(copy.read_text() + '\n__version__ = "of the copy"\n')
    raises, stopped, too_large = (folder / id for id in ids)
    raises.mkdir()
    (raises / "checkpoints").touch()
    ask("scontrol", "update", f"JobId={jobs[2]}", "MinMemoryNode=200")
    ask("scontrol", "release", array)

    wait_for("training of the second", lambda: trains(stopped, 1))
    assert main(["cancel", str(folder), "--runs", stopped.name]) == 0
    assert f"cancelled job {jobs[1]} with {stopped.name}" in capsys.readouterr().out
    assert ended(jobs[0]) == ("FAILED", "1:0")
    assert ended(jobs[1])[0] == "CANCELLED"
    assert ended(jobs[2])[0] in ("FAILED", "OUT_OF_MEMORY")  # the latter needs control groups
    assert [jobs_of(folder)[id].state for id in ids] == [accounted(job)[0] for job in jobs]
    assert Run(raises).state == "failed"
    assert "File exists" in Run(raises).status["exception"]
    assert Run(raises).status["code_version"] == "of the copy"
    assert Run(stopped).state == "preempted"

    (raises / "checkpoints").unlink()
    assert main([*submit, "cluster.timeout_min=60"]) == 0
    again = {id: job.id for id, job in jobs_of(folder).items()}
    assert not set(again.values()) & set(jobs)
    wait_for("training of the second", lambda: trains(stopped, 2))
    before = Run(stopped).status["step"]
    ask("scancel", "--signal=USR2", again[stopped.name])  # SLURM's notice
    wait_for("training of the third", lambda: trains(too_large, 1))
    ask("scontrol", "requeue", again[too_large.name])
    for job in again.values():
        assert ended(job) == ("COMPLETED", "0:0")
    for id in ids:
        run = Run(folder / id)
        assert run.state == "done"
        assert len(run.rows()) == 1
        steps = [record["step"] for record in run.metrics() if "train_loss" in record]
        assert steps == list(range(2, 301, 2))
    assert [Run(folder / id).status["attempt"] for id in ids] == [2, 3, 2]
    assert before > 0
    capsys.readouterr()
    assert main(submit) == 0
    assert capsys.readouterr().out.splitlines() == ["3 of 3 runs are finished already", "nothing to submit"]
    assert json.loads((folder / "plan.jsonl").read_text().splitlines()[0])["runs"] == 3
