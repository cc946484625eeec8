import math
from pathlib import Path

import pytest
import torch
from torch import nn

from flowzoo import train
from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.store import RunError
from flowzoo.training.optimizer import CosineDecay, Optimizer, RowAdamW, clip_factors

RATES = [(1e-2, 0.0), (3e-2, 0.1), (1e-3, 0.5)]


def optimizer(lr: float, weight_decay: float) -> Optimizer:
    return Optimizer(lr, (0.9, 0.99), 1e-8, weight_decay, warmup_steps=3, decay_to=0.2)


@pytest.mark.parametrize("bound", [None, 0.5])
def test_rows_move_as_torch_moves_each_alone(bound: float | None) -> None:
    gen = torch.Generator().manual_seed(0)
    start = torch.randn(3, 20, generator=gen, dtype=torch.float64)
    grads = torch.randn(12, 3, 20, generator=gen, dtype=torch.float64) * torch.tensor([[0.01], [1.0], [10.0]])
    rates = [optimizer(*rate) for rate in RATES]
    rows = start.clone()
    together = RowAdamW(rows, rates, steps=12)
    for g in grads:
        together.update(g, clip_factors(g.norm(dim=1), bound), torch.ones(3, dtype=torch.bool))
    for i, rate in enumerate(rates):
        p = nn.Parameter(start[i].clone())
        alone = torch.optim.AdamW([p], rate.lr, rate.betas, rate.eps, rate.weight_decay)
        for step, g in enumerate(grads):
            p.grad = g[i].clone()
            nn.utils.clip_grad_norm_([p], math.inf if bound is None else bound)
            alone.param_groups[0]["lr"] = rate.lr * rate.factor(step, 12)
            alone.step()
        torch.testing.assert_close(rows[i], p.detach(), rtol=1e-12, atol=1e-12)


def test_columns_that_do_not_decay_are_a_group_of_their_own_in_torch() -> None:
    gen = torch.Generator().manual_seed(0)
    start = torch.randn(2, 20, generator=gen, dtype=torch.float64)
    decayed = torch.rand(20, generator=gen) < 0.5
    rates = [CosineDecay(lr, (0.9, 0.98), 1e-6, decay, warmup_steps=3) for lr, decay in RATES[1:]]
    rows = start.clone()
    together = RowAdamW(rows, rates, steps=12, decayed=decayed)
    groups = [[nn.Parameter(row[mask].clone()) for mask in (decayed, ~decayed)] for row in start]
    alone = [
        torch.optim.AdamW([{"params": [a], "weight_decay": r.weight_decay}, {"params": [b], "weight_decay": 0}],
                          r.lr, r.betas, r.eps)
        for (a, b), r in zip(groups, rates, strict=True)
    ]  # fmt: skip
    for step in range(12):
        gradient = torch.randn(2, 20, generator=gen, dtype=torch.float64)
        together.update(gradient, torch.ones(2), torch.ones(2, dtype=torch.bool))
        for each, optimizer_, row, rate in zip(groups, alone, gradient, rates, strict=True):
            for p, mask in zip(each, (decayed, ~decayed), strict=True):
                p.grad = row[mask].clone()
            for group in optimizer_.param_groups:
                group["lr"] = rate.lr * rate.factor(step, 12)
            optimizer_.step()
    for row, each in zip(rows, groups, strict=True):
        for p, mask in zip(each, (decayed, ~decayed), strict=True):
            torch.testing.assert_close(row[mask], p.detach(), rtol=1e-12, atol=1e-12)


def test_cosine_decay_rises_then_falls_to_zero() -> None:
    values = [CosineDecay(warmup_steps=10).factor(step, 100) for step in range(101)]
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert max(values) == pytest.approx(1.0)
    assert values[100] == pytest.approx(0.0, abs=1e-12)


def test_a_dead_row_keeps_its_weights_whatever_its_gradient_is() -> None:
    rows = torch.ones(3, 5)
    together = RowAdamW(rows, [optimizer(*rate) for rate in RATES], steps=4)
    gradient = torch.ones(3, 5)
    gradient[1] = torch.tensor([float("nan"), float("inf"), 1.0, 0.0, -1.0])
    before = rows.clone()
    for _ in range(3):
        together.update(gradient, torch.tensor([1.0, float("nan"), 1.0]), torch.tensor([True, False, True]))
    assert torch.equal(rows[1], before[1])
    assert rows.isfinite().all()
    assert (rows[0] != before[0]).all()


def test_a_copy_in_another_precision_follows_the_weights() -> None:
    rows = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    together, rounded = RowAdamW(rows, [optimizer(*rate) for rate in RATES], 4), rows.bfloat16()
    for _ in range(3):
        together.update(rounded / 3, torch.ones(3), torch.tensor([True, False, True]), rounded)
        assert torch.equal(rounded, rows.bfloat16())


def test_state_comes_back() -> None:
    rates = [optimizer(*rate) for rate in RATES]
    rows = [torch.ones(3, 5) for _ in range(2)]
    first, second = (RowAdamW(x, rates, steps=9) for x in rows)
    for k in range(6):
        gradient, clip = torch.full((3, 5), 0.1 * (k + 1)), torch.ones(3)
        first.update(gradient, clip, clip > 0)
        if k == 2:
            rows[1].copy_(rows[0])
            second.load(first.state())
        if k > 2:
            second.update(gradient, clip, clip > 0)
    assert torch.equal(*rows)


class Nesterov(Optimizer):
    """An optimiser of one's own."""

    def update(self, parameters):
        return torch.optim.NAdam(parameters, lr=self.lr)


class Cosine(Optimizer):
    """A rate of one's own."""

    def factor(self, step, steps):
        return 0.5


def test_an_optimiser_of_ones_own_is_refused_by_name() -> None:
    numbers = {"lr": 1.0, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, "warmup_steps": 0, "decay_to": 1.0}
    rows = torch.zeros(1, 3)
    with pytest.raises(ValueError, match=r"optimizer=.*Nesterov: .* allowed: optimizer=adamw, or a class derived"):
        RowAdamW(rows, [Nesterov(**numbers)], 3)
    assert RowAdamW(rows, [Cosine(**numbers)], 3)._factors.tolist() == [0.5] * 4


@pytest.mark.parametrize("engine", ["solo", "stacked"])
@pytest.mark.parametrize("own", [f"{__name__}.Nesterov", "torch.optim.NAdam"])
def test_it_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, own: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with config_loader() as loader:
        cfgs = compose_jobs(loader, "train", [f"optimizer._target_={own}", f"trainer={engine}"], multirun=False)
    for refuses in (check_jobs, lambda cfgs: train.run(*cfgs)):
        with pytest.raises((RunError, ValueError), match="optimizer"):
            refuses(cfgs)
    assert list(tmp_path.iterdir()) == []
