"""Where runs stand: from their folders alone, whatever state a fault left these in."""

import json
import os
import time
from dataclasses import asdict, replace

import pytest

from flowzoo.runs.lock import LOCK, Held, Owner
from flowzoo.runs.store import Run, RunError
from sweeps import standing as module
from sweeps.definition import Sweep
from sweeps.manifest import PLAN, Manifest
from sweeps.plan import plan_of
from sweeps.slurm import Job
from sweeps.standing import Standing, folder_of, standing, standings


@pytest.fixture(scope="module")
def plan() -> Manifest:
    return plan_of(Sweep("x", ["rf", "eps/linear"]), ["trainer.steps=100", "trainer.batch_size=10"])


@pytest.fixture
def manifest(plan, tmp_path, monkeypatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    plan.write()
    return plan


@pytest.fixture
def run(manifest) -> Run:
    """The first run, as its own process creates it."""
    return Run.create(manifest.runs[0].cfg)


def first(manifest: Manifest) -> Standing:
    return standing(manifest)[0]


def test_what_has_not_begun_is_queued(manifest):
    rows = standing(manifest)
    assert [row.id for row in rows] == [planned.id for planned in manifest.runs]
    assert {(row.state, row.step, row.steps, row.eta, row.note) for row in rows} == {("queued", 0, 100, None, "")}


def test_every_state_of_a_run_is_its_standing(manifest, run):
    for state in ("queued", "done", "diverged", "stopped", "preempted", "failed"):
        run.set_status(state, step=7)
        assert (first(manifest).state, first(manifest).step) == (state, 7)


def test_running_needs_a_living_owner(manifest, run):
    with run.lock():
        run.set_status("running")
        assert first(manifest).state == "running"
    assert first(manifest).state == "lost"
    (run.path / LOCK).write_text(json.dumps(asdict(replace(Owner.here(), started=0))))
    row = first(manifest)
    assert row.state == "lost"
    assert f"process {os.getpid()} on " in row.note


def test_a_run_that_ends_while_it_is_looked_at_is_not_lost(manifest, run, monkeypatch):
    run.set_status("running")

    def ends(path):
        run.set_status("done")  # and lets go of its lock

    monkeypatch.setattr(Held, "read", ends)
    assert first(manifest).state == "done"


def test_step_and_time_left_come_from_the_end_of_the_metrics(manifest, run, monkeypatch):
    with run.lock():
        run.set_status("running", step=0)
        for step in range(1, 41):
            run.append_metrics({"step": step, "images_per_s": 5.0, "padding": "x" * 1000})
        run.append_metrics({"step": 40, "val_loss_ema": 0.5})
        with open(run.path / "metrics.jsonl", "a") as file:
            file.write('{"step": 41, "ima')  # being written
        now = time.time()
        os.utime(run.path / "metrics.jsonl", (now, now))
        monkeypatch.setattr(time, "time", lambda: now + 20)
        row = first(manifest)
    assert row.step == 40
    assert row.eta == pytest.approx(60 * 10 / 5.0 - 20, abs=1e-3)


def test_a_failure_says_its_last_line(manifest, run):
    run.set_status("failed", exception="Traceback\n  in x\nRuntimeError: out of memory\n")
    assert first(manifest).note == "RuntimeError: out of memory"


@pytest.mark.parametrize("content", ["", '{"state', "[]"])
def test_a_status_that_cannot_be_read_is_said_and_the_others_stand(manifest, run, content):
    (run.path / "status.json").write_text(content)
    row, other = standing(manifest)
    assert (row.state, other.state) == ("damaged", "queued")
    assert "status.json" in row.note


def test_what_differs_from_the_plan_is_said(manifest, run):
    run.set_status("done")
    assert first(manifest).note == ""
    cfg = manifest.runs[0].cfg
    cfg.data.workers = 7  # changes neither a weight nor a score
    run.set_config(cfg)
    assert first(manifest).note == ""
    cfg.evaluation.samples = 999
    run.set_config(cfg)
    assert "config: evaluation.samples=999" in first(manifest).note
    run.set_status("done", code_version="0.0.0+older")
    assert f"code 0.0.0+older, planned {manifest.code_version}" in first(manifest).note


def test_slurm_is_asked_once_and_says_what_waits_and_what_ended(manifest, run, monkeypatch):
    calls = []

    def jobs(answer):
        monkeypatch.setattr(
            module, "jobs_as_far_as_known", lambda folder: calls.append(folder) or {run.path.name: answer}
        )

    jobs(Job("5_0", "PENDING", "Priority"))
    assert (first(manifest).job, first(manifest).note) == ("5_0 PENDING", "waits for Priority")
    assert len(calls) == 2
    elsewhere = replace(Owner.here(), place="another boot", job="6")
    (run.path / LOCK).write_text(json.dumps(asdict(elsewhere)))
    run.set_status("running")
    for state, expected in (("RUNNING", "running"), ("OUT_OF_MEMORY", "lost"), ("UNKNOWN", "running")):
        jobs(Job("5_0", state))
        assert first(manifest).state == expected
    os.utime(run.path / LOCK, (0, 0))
    jobs(Job("5_0", "PENDING"))  # requeued after a node failure
    assert first(manifest).state == "preempted"


def test_a_folder_without_a_plan_has_standings_too(manifest, run):
    run.set_status("preempted", step=3, steps=9)
    (manifest.folder / PLAN).unlink()
    (row,) = standings(manifest.folder)
    assert (row.id, row.variant, row.state, row.step, row.steps) == (run.path.name, "rf", "preempted", 3, 9)


def test_a_sweep_is_found_by_name_file_and_folder(manifest, tmp_path):
    (tmp_path / "x.yaml").write_text("variants: [rf]\n")
    for sweep, words in (("x", []), ("x.yaml", []), ("runs/x", []), ("x", ["runs=runs"]), ("demo", ["sweep=x"])):
        assert folder_of(sweep, words).resolve() == manifest.folder.resolve()
    with pytest.raises(ValueError, match="sweep nothing: allowed are"):
        folder_of("nothing", [])
    with pytest.raises(RunError, match="no folder runs/demo"):
        folder_of("demo", [])
    with pytest.raises(ValueError, match=r"trainer\.steps=3: allowed are runs=DIR and sweep=NAME"):
        folder_of("x", ["trainer.steps=3"])
