"""A sweep in one process, with tasks that do nothing: order, what is skipped, what fails, what is interrupted."""

import pytest

from flowzoo.runs.identity import run_folder, run_variant
from flowzoo.runs.store import Interrupted, Run, RunBusy
from sweeps.definition import Sweep
from sweeps.engine import run_all
from sweeps.plan import plan_of


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def jobs():
    return [planned.cfg for planned in plan_of(Sweep("x", ["rf", "eps/linear", "v/cos"])).runs]


def done(cfg):
    Run.create(cfg).set_status("done", step=cfg.trainer.steps)


def test_finished_runs_are_skipped_and_said(jobs, capsys):
    seen = []
    Run.create(jobs[1]).set_status("diverged", step=2)

    def task(cfg):
        seen.append(run_variant(cfg))
        done(cfg)

    assert run_all(jobs, task) == 0
    assert seen == ["rf", "v/cos"]
    assert "already there" in capsys.readouterr().out
    assert run_all(jobs, task) == 0
    assert len(seen) == 2


def test_a_failing_run_is_recorded_and_passed_over(jobs, capsys):
    def task(cfg):
        if run_variant(cfg) == "eps/linear":
            raise RuntimeError("out of memory")
        done(cfg)

    assert run_all(jobs, task) == 1
    assert [Run(run_folder(cfg)).state for cfg in jobs] == ["done", "failed", "done"]
    assert Run(run_folder(jobs[1])).status["exception"] == "RuntimeError: out of memory"
    assert "failed: eps/linear, seed 0: RuntimeError: out of memory" in capsys.readouterr().err
    assert run_all(jobs, done) == 0  # the same command tries it again


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt])
def test_an_interruption_ends_the_sweep_and_the_same_command_goes_on(jobs, capsys, error):
    def stops(cfg):
        if run_variant(cfg) == "eps/linear":
            Run.create(cfg).set_status("preempted", step=3)
            raise error
        done(cfg)

    assert run_all(jobs, stops) == 130
    assert "stopped with 2 of 3 runs to go; the same command goes on" in capsys.readouterr().err
    assert not run_folder(jobs[2]).exists()
    assert run_all(jobs, done) == 0


def test_a_run_that_another_process_trains_is_left_alone(jobs, capsys):
    def task(cfg):
        run = Run.create(cfg)
        if run_variant(cfg) == "rf":
            raise RunBusy(f"{run.path} is being trained by process 1 on elsewhere")
        done(cfg)

    assert run_all(jobs, task) == 0
    assert Run(run_folder(jobs[0])).state == "queued"
    assert "process 1 on elsewhere" in capsys.readouterr().out


def test_swept_keys_are_told_of_each_run(capsys):
    plan = plan_of(Sweep("x", ["rf"], cross={"optimizer.lr": [0.001, 0.01]}))
    assert run_all([planned.cfg for planned in plan.runs], done, plan.swept) == 0
    said = capsys.readouterr().out
    assert "[2/2] rf, optimizer.lr=0.01, seed 0\n" in said
    assert said.count("optimizer.lr=0.001 ") == 1  # in the table, whole
