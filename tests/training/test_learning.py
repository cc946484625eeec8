"""Optimisers, learning-rate schedules and averages of every kind, from commands: alone, stacked, resumed, refused."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from flowzoo.build import jobs_of
from flowzoo.job import Stack
from flowzoo.runs.config import check_jobs
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder
from flowzoo.training.checkpoint import last_step, load, read_weights
from flowzoo.training.fit import fit
from flowzoo.training.optimizer import RowOptimizer

WORDS = ["trainer.precision=64-true", "trainer.steps=6", "trainer.val_every=3", "trainer.checkpoint_every=2", "path=rf"]
Jobs = Callable[..., list[DictConfig]]


class Signs(RowOptimizer):
    """Every weight moves by its rate."""

    def __init__(self, lr: float, beta: float = 0.9) -> None:
        self.lr, self.beta = lr, beta

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        kept["exp_avg"].lerp_(g, 1 - self.beta)
        w.sub_(lr * kept["exp_avg"].sign())


class Triangle:
    """Up to the middle, and down again."""

    def __init__(self, low: float) -> None:
        self.low = low

    def factor(self, step: int, steps: int) -> float:
        return self.low + (1 - self.low) * (1 - abs(2 * step / steps - 1))


class Tail:
    """The plain mean of the weights from a step on (Izmailov et al. 2018)."""

    def __init__(self, first: int) -> None:
        self.first, self.n = first, 0

    def start(self, rows: Tensor) -> None:
        self.n, self.mean = 0, torch.zeros_like(rows)

    def update(self, rows: Tensor, step: int) -> None:
        if step >= self.first:
            self.n += 1
            self.mean.lerp_(rows, 1 / self.n)

    def average(self) -> Tensor | None:
        return self.mean if self.n else None

    def state(self) -> dict[str, Any]:
        return {"n": self.n, "mean": self.mean}

    def load(self, state: Mapping[str, Any]) -> None:
        self.n = state["n"]
        self.mean.copy_(state["mean"])


class Lost:
    def start(self, rows: Tensor) -> None:
        """Nothing else is here."""


HERE = __name__
BARE = ["~optimizer.betas", "~optimizer.eps", "~optimizer.weight_decay"]
OWN_EMA = [f"ema._target_={HERE}.Tail", "~ema.every", "~ema.decay", "~ema.bias_correction", "+ema.first=3"]
ROWS = {
    "adam": ["optimizer=adam"],
    "sgd": ["optimizer=sgd", "optimizer.lr=0.1"],
    "nadam": ["optimizer=nadam"],
    "lion": ["optimizer=lion"],
    "muon": ["optimizer=muon"],
    "own": [f"optimizer._target_={HERE}.Signs", *BARE],
    "cosine": ["optimizer/rate=cosine"],
    "own rate and average": [f"+optimizer.rate={{_target_: {HERE}.Triangle, low: 0.1}}", *OWN_EMA],
}
TORCHS = {
    "radam": ["optimizer._target_=torch.optim.RAdam"],
    "adagrad": ["optimizer._target_=torch.optim.Adagrad", "~optimizer.betas"],
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def train(cfgs: list[DictConfig], until: int | None = None) -> list[Path]:
    """From where they stand to the last step or to `until`; their last checkpoints."""
    jobs = jobs_of([alone(cfg) for cfg in cfgs])
    for job in jobs:
        job.run.make(job.config, job.variant)
    fit(Stack(jobs), last_step(jobs[0].run), until)
    return [job.run.path / "checkpoints" / "last.ckpt" for job in jobs]


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return one == other


@pytest.mark.parametrize("words", [*ROWS.values(), *TORCHS.values()], ids=[*ROWS, *TORCHS])
def test_it_goes_on_as_if_never_stopped(tiny_jobs: Jobs, words: list[str]) -> None:
    (whole,) = train(tiny_jobs(*WORDS, *words, runs="whole"))
    cfgs = tiny_jobs(*WORDS, *words, runs="parts")
    check_jobs(cfgs)
    train(cfgs, until=4)
    (parts,) = train(cfgs)
    one, other = load(whole), load(parts)
    for part in ("state_dict", "ema", "optimizer", "global_step"):
        assert same(one[part], other[part]), part


@pytest.mark.parametrize("words", ROWS.values(), ids=list(ROWS))
def test_a_stack_of_them_is_each_alone(tiny_jobs: Jobs, words: list[str]) -> None:
    many = ["optimizer.lr=1e-2,1e-3", "seed=0,1"]
    together = train(tiny_jobs(*WORDS, *words, *many, "trainer=stacked", runs="stack"))
    each = [train([cfg])[0] for cfg in tiny_jobs(*WORDS, *words, *many, runs="solo")]
    assert [path.parts[-3] for path in together] == [path.parts[-3] for path in each]
    for one, other in zip(together, each, strict=True):
        for weights in ("raw", "ema"):
            a, b = (read_weights(path, weights)[0] for path in (one, other))
            # under vmap products are added up in another order, which Muon's bfloat16 does not forgive
            near = 1e-3 if "optimizer=muon" in words else 1e-10
            torch.testing.assert_close(a, b, rtol=near, atol=near)


def test_the_average_of_ones_own_is_what_is_scored(tiny_jobs: Jobs) -> None:
    cfgs = tiny_jobs(*WORDS, *OWN_EMA, "trainer.checkpoint_every=1")
    seen = [read_weights(train(cfgs, until=step)[0], "raw")[0] for step in (1, 2, 3, 4, 5)]
    found, _ = read_weights(train(cfgs)[0], "ema")
    last, _ = read_weights(train(cfgs)[0], "raw")
    for name, x in found.items():
        mean = torch.stack([one[name] for one in (*seen[2:], last)]).mean(0)
        torch.testing.assert_close(x, mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["optimizer._target_=torch.optim.RAdam", "trainer=stacked"],
            r"optimizer=torch\.optim\.RAdam: .* trainer=solo",
        ),
        (["optimizer._target_=torch.optim.LBFGS", *BARE], r"optimizer: torch\.optim\.LBFGS: .*closure"),
        (["optimizer._target_=torch.optim.Adagrad"], r"optimizer\.betas: .* no such parameter; allowed are lr"),
        (["optimizer._target_=torch.optim.RAdam", "~optimizer.lr"], "optimizer.lr is missing"),
        (["optimizer._target_=torch.optim.RAdam", "~optimizer.decay_to"], "optimizer.decay_to is missing"),
        ([f"optimizer._target_={HERE}.Triangle", *BARE], "optimizer.lr: .*Triangle has no such parameter"),
        (["optimizer._target_=builtins.dict"], "optimizer: builtins.dict: "),
        (["optimizer=muon", "trainer.strategy=sharded"], "optimizer=.*Muon with trainer.strategy=sharded: .*ddp"),
        (["optimizer=sgd", "~optimizer.momentum"], "optimizer.momentum is missing"),
        (
            [f"+optimizer.rate={{_target_: {HERE}.Triangle, low: -1}}"],
            r"optimizer\.rate: .*Triangle: factor\(0, 6\) is -1",
        ),
        ([f"+optimizer.rate={{_target_: {HERE}.Lost}}"], r"optimizer\.rate: .*Lost: it lacks factor; .*Rate"),
        (
            [f"ema._target_={HERE}.Lost", *OWN_EMA[1:4]],
            r"ema: .*Lost: it lacks update, average, state, load; .*Average",
        ),
    ],
)
def test_nonsense_is_refused_in_one_line_before_anything_is_written(
    tiny_jobs: Jobs, tmp_path: Path, words: list[str], told: str
) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=told) as raised:
        check_jobs(tiny_jobs(*WORDS, *words))
    assert "\n" not in str(raised.value)
    assert set(tmp_path.rglob("*")) == before


def test_runs_are_named_by_what_they_compute(tiny_jobs: Jobs) -> None:
    name = lambda *words: run_folder(tiny_jobs(*WORDS, *words)[0]).name  # noqa: E731
    assert len({name(*words) for words in [[], *ROWS.values(), *TORCHS.values()]}) == 1 + len(ROWS) + len(TORCHS)
    assert name() == name("+optimizer.rate=null")
    cosine = ["optimizer/rate=cosine", "optimizer.rate.warmup_steps=1"]
    assert name(*cosine) == name(*cosine, "optimizer.decay_to=0.5", "optimizer.warmup_steps=7")
