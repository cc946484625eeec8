"""Runs with rungs: one that goes on is the run that it would have been, one that stops is not trained again."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from flowzoo import train
from flowzoo.runs.check import check_train
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder
from flowzoo.runs.signals import Notice
from flowzoo.runs.store import Interrupted, Run
from flowzoo.training import halving
from flowzoo.training.checkpoint import last_step
from flowzoo.training.rungs import FILE

SHORT = ["trainer.steps=6", "trainer.val_every=3", "trainer.checkpoint_every=4", "evaluation.weights=[ema]"]
SHORT += ["evaluation.settings=[{steps: 2, guidance: 2.0}]"]
DOUBLE = "trainer.precision=64-true"  # in which a stack equals its members alone
RUNGS = ["halving=asha", "halving.images=[16, 40]", "halving.eta=2", "halving.samples=66", "halving.steps=1"]
Jobs = Callable[..., list[DictConfig]]


@pytest.fixture
def jobs(tiny_jobs: Jobs) -> Jobs:
    def compose(runs: str, variants: Sequence[str], *words: str, stacked: bool = False) -> list[DictConfig]:
        engine = ["trainer=stacked"] * stacked
        return [alone(cfg) for cfg in tiny_jobs(f"variant={','.join(variants)}", *SHORT, *words, *engine, runs=runs)]

    return compose


def run_of(cfg: DictConfig) -> Run:
    return Run.open(run_folder(cfg))


def facts(cfg: DictConfig) -> dict[str, Any]:
    """All that a run has come to, less what tells the time."""
    run, timing = run_of(cfg), ("images_per_s", "loader_wait", "seconds")
    tables = {"metrics": run.metrics(), "rows": run.rows()}
    out: dict[str, Any] = {k: [{c: v for c, v in r.items() if c not in timing} for r in t] for k, t in tables.items()}
    for name in ("last", "best"):
        content = torch.load(run.path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        out[name] = {key: content.get(key) for key in ("state_dict", "ema", "optimizer", "global_step")}
    return out


def assert_equal(one: Any, other: Any, tolerance: float = 0.0) -> None:
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key], tolerance)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair, tolerance)
    else:
        assert one == (pytest.approx(other, rel=1e-6) if tolerance and isinstance(one, float) else other)


def fids(monkeypatch: pytest.MonkeyPatch, by_variant: dict[str, float]) -> list[str]:
    """Rungs score as told instead of sampling; returns the list of who was scored."""
    scored: list[str] = []

    def told(self: halving.Halving, places: Sequence[int]) -> list[float]:
        names = [self.runs[i].path.name.split("-s0-")[0] for i in places]
        scored.extend(names)
        return [by_variant[name] for name in names]

    monkeypatch.setattr(halving.Halving, "_fids", told)
    return scored


def stopping_at(step: int, monkeypatch: pytest.MonkeyPatch, cfg: DictConfig) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Notice, "given", lambda self, trainer: trainer.global_step == step)
        with pytest.raises(Interrupted):
            train.run(cfg)


def test_one_that_goes_on_equals_its_undisturbed_twin(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Really scored at both rungs, and interrupted before, at, and after a rung."""
    (disturbed,) = jobs("rungs", ["rf"], *RUNGS)
    (undisturbed,) = jobs("none", ["rf"])
    assert run_folder(disturbed).name == run_folder(undisturbed).name
    for step in (1, 2, 3):
        stopping_at(step, monkeypatch, disturbed)
    train.run(disturbed)
    train.run(undisturbed)
    assert run_of(disturbed).state == "done"
    assert_equal(facts(disturbed), facts(undisturbed))


def test_killed_between_score_and_verdict(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rung is decided, not trained past, by the next attempt; one that is decided is not scored again."""
    (cfg,) = jobs("rungs", ["rf"], *RUNGS)
    scored = fids(monkeypatch, {"rf": 1.0})

    def dies(*_: Any) -> None:
        raise SystemError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(halving, "decide", dies)
        with pytest.raises(SystemError):
            train.run(cfg)
    assert last_step(run_of(cfg)) == 2
    stopping_at(4, monkeypatch, cfg)
    assert scored == ["rf", "rf"]
    train.run(cfg)
    assert scored == ["rf", "rf", "rf"]  # the second rung
    assert run_of(cfg).state == "done"


@pytest.mark.parametrize("stacked", [False, True])
def test_one_that_stops(stacked: bool, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no rows, stays stopped, and goes on where there is no halving; the others never notice."""
    names = ["rf", "v_cos", "edm_rf", "eps_cos"]
    cfgs = jobs("rungs", names, *RUNGS, DOUBLE, stacked=stacked)
    scored = fids(monkeypatch, {"rf": 1.0, "v_cos": 2.0, "edm_rf": 4.0, "eps_cos": 3.0})

    def trained(cfgs: Sequence[DictConfig]) -> None:
        if stacked:
            train.run(*cfgs)
        else:
            for cfg in cfgs:
                train.run(cfg)

    trained(cfgs)
    states = {name: run_of(cfg).state for name, cfg in zip(names, cfgs, strict=True)}
    # together: the best two of four go on, then the best of two; one by one: v_cos is second of two
    assert states == {"rf": "done", "v_cos": "stopped", "edm_rf": "stopped", "eps_cos": "stopped"}
    assert [last_step(run_of(cfg)) for cfg in cfgs] == [6, 5 if stacked else 2, 2, 2]
    assert [len(run_of(cfg).rows()) for cfg in cfgs] == [1, 0, 0, 0]
    before = len(scored)
    trained(cfgs)
    assert len(scored) == before
    assert {name: run_of(cfg).state for name, cfg in zip(names, cfgs, strict=True)} == states
    if stacked:
        freed, undisturbed = jobs("rungs", names[1:2], DOUBLE), jobs("none", names[:2], DOUBLE)
        for cfg in (*freed, *undisturbed):
            train.run(cfg)
        for one, other in zip((cfgs[0], *freed), undisturbed, strict=True):
            assert_equal({**facts(one), "rows": [], "metrics": []}, {**facts(other), "rows": [], "metrics": []}, 1e-10)


def test_a_stack_is_scored_as_each_alone(jobs: Jobs) -> None:
    words = [*RUNGS, DOUBLE, "halving.images=[16]", "trainer.steps=3"]
    stack, each = (jobs(runs, ["rf", "edm_rf"], *words) for runs in ("stack", "solo"))
    train.run(*stack)
    for cfg in each:
        train.run(cfg)
    one, other = ([json.loads((run_folder(c) / FILE).read_text())["16"]["fid"] for c in cs] for cs in (stack, each))
    assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("word", ["halving.eta=1", "halving.images=[]", "halving.samples=0", "trainer.devices=2"])
def test_mistakes_are_refused(word: str, jobs: Jobs) -> None:
    (cfg,) = jobs("runs", ["rf"], *RUNGS, word)
    with pytest.raises(ValueError, match=r"allowed (is|are)"):
        check_train(cfg)
