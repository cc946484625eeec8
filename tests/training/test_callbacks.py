"""Callbacks of one's own look at a training; those that could not do their work are refused by name."""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch import callbacks as lightnings
from omegaconf import DictConfig

from flowzoo import train
from flowzoo.build import jobs_of
from flowzoo.job import Job, Stack
from flowzoo.runs.config import check_jobs
from flowzoo.runs.files import RunError
from flowzoo.runs.identity import run_folder, run_hash
from flowzoo.training import lifecycle
from flowzoo.training.callbacks import FIRING, HOOKS, REFUSED, check_callback
from flowzoo.training.checkpoint import last_step
from flowzoo.training.fit import fit
from flowzoo.training.program import Program

Compose = Callable[..., DictConfig]
STEPS = ["trainer.steps=4", "trainer.val_every=2", "trainer.checkpoint_every=2"]


def overriding(hooks: Mapping[str, Callable[..., Any]]) -> type[Callback]:
    return type("Own", (Callback,), dict(hooks))


def stack_with(cfg: DictConfig, *made: Callback) -> Stack:
    """The stack of one job with these callbacks, in its folder."""
    (job,) = jobs_of([cfg])
    job = Job(**{**vars(job), "callbacks": lambda: made})
    job.run.make(job.config, job.variant)
    return Stack([job])


def test_exactly_the_hooks_of_the_table_fire(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def noting(hook: str) -> Callable[..., Any]:
        return lambda self, *_, **__: seen.append(hook) or ({} if hook == "state_dict" else None)

    everything = overriding({hook: noting(hook) for hook in HOOKS})
    stack = stack_with(tiny(*STEPS), everything())
    fit(stack, 0, until=2)
    fit(stack_with(tiny(*STEPS), everything()), 2)  # goes on from a checkpoint
    assert "on_exception" not in seen
    monkeypatch.setattr(Program, "step", _struck)
    with pytest.raises(SystemError):
        fit(stack_with(tiny(*STEPS, "seed=1"), everything()), 0)
    assert set(seen) - set(REFUSED) == set(FIRING)
    assert seen[0] == "setup"
    assert set(HOOKS) >= set(FIRING)
    table = (Path(__file__).parents[2] / "docs/extending.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", table.split("## Callbacks")[1].split("\n## ")[0], re.M) == list(FIRING)


def _struck(*_: Any) -> None:
    raise SystemError("struck")


def test_a_callback_sees_the_program_and_changes_nothing(tiny: Compose) -> None:
    norms: list[list[float]] = []

    class Norms(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            norms.append(module.program.rows.norm(dim=1).tolist())

    plain, watched = tiny(*STEPS, runs="plain"), tiny(*STEPS, runs="watched")
    for cfg, made in ((plain, ()), (watched, (Norms(),))):
        fit(stack_with(cfg, *made), 0)
    one, other = (torch.load(run_folder(cfg) / "checkpoints/last.ckpt", weights_only=True) for cfg in (plain, watched))
    assert one.keys() == other.keys()
    assert all(torch.equal(one["state_dict"][name], other["state_dict"][name]) for name in one["state_dict"])
    assert len(norms) == 4
    assert all(len(row) == 1 and row[0] > 0 for row in norms)


def test_what_a_callback_stops_is_saved_and_goes_on(tiny: Compose) -> None:
    class Enough(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 3  # no checkpoint's step

    cfg = tiny(*STEPS)
    stack = stack_with(cfg, Enough())
    outcome = fit(stack, 0)
    assert (outcome.step, outcome.interrupted, last_step(stack.runs[0])) == (3, True, 3)
    assert fit(stack_with(cfg), 3).step == 4


def test_logging_by_the_module_is_refused(tiny: Compose) -> None:
    class Logs(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            module.log("mine", 1.0)

    with pytest.raises(RunError, match=r"logs mine .*allowed is trainer.loggers"):
        fit(stack_with(tiny(*STEPS), Logs()), 0)


LIGHTNINGS = [kind for name in lightnings.__all__ if (kind := getattr(lightnings, name)) is not Callback]


@pytest.mark.parametrize("kind", LIGHTNINGS)
def test_lightnings_own_are_refused_by_name_but_the_timer(kind: type) -> None:
    if kind is lightnings.Timer:
        check_callback("mine", kind)
        return
    with pytest.raises(ValueError, match=rf"^callbacks.mine: .*{kind.__name__} .*allowed of Lightning's: Timer$"):
        check_callback("mine", kind)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_never_fires_is_refused_by_name(hook: str) -> None:
    kind = overriding({hook: lambda self, *_: None})
    if hook in FIRING:
        check_callback("mine", kind)
        return
    with pytest.raises(ValueError, match=rf"^callbacks.mine: .*Own overrides {hook}: .*allowed are setup"):
        check_callback("mine", kind)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module `watching` with two callbacks, as a user's own."""
    made = ModuleType("watching")

    class Every(Callback):
        def __init__(self, steps: int) -> None:
            if steps < 1:
                raise ValueError(f"Every's steps={steps}: allowed is an integer of at least 1")

    made.Every, made.Early = Every, type("Early", (lightnings.EarlyStopping,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "watching", made)
    return made


def test_the_group_is_checked_before_anything_is_written_and_is_not_in_the_hash(
    module: ModuleType, tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = "+callbacks.mine={_target_: watching.Every, steps: 1}"
    cfg = tiny(*STEPS, "callbacks=[timer]", every)
    check_jobs([cfg])
    assert run_hash(cfg) == run_hash(tiny(*STEPS))
    for words, told in (
        (["+callbacks.mine={_target_: watching.Every, steps: 0}"], r"callbacks.mine: Every's steps=0: allowed is"),
        (["+callbacks.mine={_target_: watching.Every}"], r"callbacks.mine.steps is missing"),
        (
            ["+callbacks.mine={_target_: watching.Early, monitor: x}"],
            r"callbacks.mine: .*Early is derived from Early",
        ),
        (["+callbacks.mine={_target_: watching.None}"], r"callbacks.mine: "),
        (
            ["+callbacks.mine={_target_: fractions.Fraction}"],
            r"callbacks.mine: fractions.Fraction is no class",
        ),
        (["+callbacks.mine={steps: 1}"], r"callbacks.mine=.*names no class"),
        (
            [every, "+callbacks.other={_target_: watching.Every, steps: 1}"],
            r"callbacks.mine and callbacks.other are",
        ),
        (["callbacks=[timer]", "callbacks.timer.duration=long"], r"callbacks.timer: .*long.* is not a valid duration"),
    ):
        with pytest.raises((RunError, ValueError), match=told) as error:
            check_jobs([tiny(*STEPS, *words)])
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
    made: list[int] = []
    monkeypatch.setattr(module.Every, "on_train_start", lambda *_: made.append(1), raising=False)
    monkeypatch.setattr(lifecycle, "score", lambda *_: None)
    train.run(cfg)
    assert made == [1]
