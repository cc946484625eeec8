"""All runs of a command in stacks: how they are cut, dealt, recorded when they fail, and stopped."""

import sys
from collections.abc import Callable, Sequence

import pytest
from omegaconf import DictConfig

from flowzoo import stacks, train
from flowzoo.build import jobs_of
from flowzoo.job import Stack
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder, run_variant
from flowzoo.runs.store import Interrupted, Run
from flowzoo.stacks import run_stacks
from flowzoo.training import memory

Jobs = Callable[..., list[DictConfig]]
QUICK = ["trainer.steps=2", "trainer.val_every=2", "evaluation.weights=[raw]"]


@pytest.fixture
def jobs(tiny_jobs: Jobs) -> Jobs:
    return lambda variants, *words: tiny_jobs(*QUICK, f"variant={variants}", "trainer=stacked", *words)


def states(cfgs: Sequence[DictConfig]) -> list[str | None]:
    return [Run(run_folder(cfg)).state for cfg in cfgs]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The stacks, which only pretend to train."""
    seen: list[list[str]] = []

    def pretends(cfgs: Sequence[DictConfig]) -> None:
        seen.append([run_variant(cfg) for cfg in cfgs])
        for cfg in cfgs:
            Run.create(cfg).set_status("done")

    monkeypatch.setattr(stacks, "jobs_left", list)
    monkeypatch.setattr(stacks, "train_and_score", pretends)
    return seen


def test_sizes_are_said_and_finished_runs_left_out(jobs: Jobs, seen, capsys) -> None:
    cfgs = jobs("rf,v_cos,eps_cos,v_linear,edm_rf,edm_cos", "stack.size=2")
    Run.create(alone(cfgs[1])).set_status("done")
    assert run_stacks(cfgs) == 0
    assert seen == [["rf", "eps/cos"], ["v/linear", "edm/rf"], ["edm/cos"]]
    out = capsys.readouterr().out
    assert "5 variants in 3 stacks of 2, 2 and 1" in out
    assert "1 of 6 runs are finished already\n" in out
    assert "stack" not in Run(run_folder(cfgs[0])).config
    assert run_stacks(cfgs) == 0
    assert len(seen) == 3


def test_the_free_memory_sets_the_size(jobs: Jobs, seen, monkeypatch, capsys) -> None:
    cfgs = jobs("rf,v_cos,eps_cos")
    one, bigger = (Stack(jobs_of(some)) for some in (cfgs[:1], jobs("rf", "trainer.batch_size=64")))
    need, copies = memory.estimated(one), memory.COPIES * one.network.flat.nbytes
    assert need > copies  # and the activations of a batch
    assert memory.estimated(bigger) - need == pytest.approx(7 * (need - copies))
    for variants, expected in ((0.5, 1), (2.5, 2), (3.5, 3)):
        monkeypatch.setattr(memory, "free_memory", lambda device, v=variants: v * need / memory.SHARE)
        assert memory.limit_of(one) == expected
    monkeypatch.setattr(memory, "free_memory", lambda device: 2.5 * need / memory.SHARE)
    assert run_stacks(cfgs) == 0
    assert "3 variants in 2 stacks of 2 and 1" in capsys.readouterr().out


def test_a_stack_that_fails_is_recorded_in_its_runs_and_passed_over(jobs: Jobs, seen, monkeypatch, capsys) -> None:
    cfgs = jobs("rf,v_cos,eps_cos", "stack.size=2")
    pretends = stacks.train_and_score

    def fails(part: Sequence[DictConfig]) -> None:
        if len(part) == 2:
            raise RuntimeError("out of memory")
        pretends(part)

    monkeypatch.setattr(stacks, "train_and_score", fails)
    assert run_stacks(cfgs) == 1
    assert states(cfgs) == ["failed", "failed", "done"]
    assert Run(run_folder(cfgs[0])).status["exception"] == "RuntimeError: out of memory"
    assert capsys.readouterr().err.count("failed: ") == 2


def test_an_interruption_ends_it_all(jobs: Jobs, monkeypatch, capsys) -> None:
    cfgs = jobs("rf,v_cos,eps_cos", "stack.size=1")
    calls = []

    def stops(part: Sequence[DictConfig]) -> None:
        calls.append(part)
        raise Interrupted("1 runs stopped")

    monkeypatch.setattr(stacks, "jobs_left", list)
    monkeypatch.setattr(stacks, "train_and_score", stops)
    assert run_stacks(cfgs) == 130
    assert len(calls) == 1
    assert "1 runs stopped; the same command goes on from here" in capsys.readouterr().err


def test_the_command_gives_all_its_jobs_to_one_call(monkeypatch, tmp_path) -> None:
    seen = []

    def together(cfgs: Sequence[DictConfig]) -> int:
        seen.extend(run_variant(cfg) for cfg in cfgs)
        return 7

    argv = ["train", "-m", "trainer=stacked", "variant=rf,v_cos", "seed=0,1", f"runs={tmp_path / 'runs'}"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(train, "run_together", together)
    monkeypatch.setattr(train, "ready", lambda cfgs: None)
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 7
    assert sorted(seen) == ["rf", "rf", "v/cos", "v/cos"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_runs_are_dealt_to_processes(jobs: Jobs, capfd) -> None:
    cfgs = jobs("rf,v_cos,edm_rf", "stack.processes=2")
    assert run_stacks(cfgs) == 0
    assert states(cfgs) == ["done"] * 3
    out = capfd.readouterr().out
    assert "3 runs dealt to 2 processes: 2, 1" in out
    assert "2 variants in 1 stack" in out
    assert len({Run(run_folder(cfg)).status["pid"] for cfg in cfgs}) == 2
