import copy

import pytest
import torch
from torch import nn

from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.store import RunError
from flowzoo.training import fit
from flowzoo.training.job import train_and_score
from flowzoo.training.optimizer import Optimizer, StackedAdamW, clip_factors
from flowzoo.training.stack import train_and_score_stack

RATES = [(1e-2, 0.0), (3e-2, 0.1), (1e-3, 0.5)]


def optimizer(lr: float, weight_decay: float) -> Optimizer:
    return Optimizer(lr, (0.9, 0.99), 1e-8, weight_decay, warmup_steps=3, decay_to=0.2)


@pytest.mark.parametrize("bound", [None, 0.5])
def test_rows_move_as_torch_moves_each_alone(bound: float | None) -> None:
    gen = torch.Generator().manual_seed(0)
    start = torch.randn(3, 20, generator=gen, dtype=torch.float64)
    grads = torch.randn(12, 3, 20, generator=gen, dtype=torch.float64) * torch.tensor([[0.01], [1.0], [10.0]])
    rates = [optimizer(*rate) for rate in RATES]
    flat = nn.Parameter(start.clone())
    stacked = StackedAdamW(flat, rates, steps=12)
    for g in grads:
        stacked.update(g, clip_factors(g.norm(dim=1), bound), torch.ones(3, dtype=torch.bool))
    for i, rate in enumerate(rates):
        p = nn.Parameter(start[i].clone())
        alone = rate.adamw([p], p.device)
        schedule = rate.schedule(alone, 12)
        for g in grads:
            p.grad = g[i].clone()
            nn.utils.clip_grad_norm_([p], float("inf") if bound is None else bound)
            alone.step()
            schedule.step()
        torch.testing.assert_close(flat[i], p, rtol=1e-12, atol=1e-12)


def test_a_dead_row_keeps_its_weights_whatever_its_gradient_is() -> None:
    flat = nn.Parameter(torch.ones(3, 5))
    stacked = StackedAdamW(flat, [optimizer(*rate) for rate in RATES], steps=4)
    gradient = torch.ones(3, 5)
    gradient[1] = torch.tensor([float("nan"), float("inf"), 1.0, 0.0, -1.0])
    before = flat.detach().clone()
    for _ in range(3):
        stacked.update(gradient, torch.tensor([1.0, float("nan"), 1.0]), torch.tensor([True, False, True]))
    assert torch.equal(flat[1], before[1])
    assert flat.isfinite().all()
    assert (flat[0] != before[0]).all()


def test_a_copy_in_another_precision_follows_the_weights() -> None:
    flat = nn.Parameter(torch.randn(3, 50, generator=torch.Generator().manual_seed(0)))
    stacked, rounded = StackedAdamW(flat, [optimizer(*rate) for rate in RATES], 4), flat.detach().bfloat16()
    for _ in range(3):
        stacked.update(rounded / 3, torch.ones(3), torch.tensor([True, False, True]), rounded)
        assert torch.equal(rounded, flat.detach().bfloat16())


def test_state_comes_back() -> None:
    rates = [optimizer(*rate) for rate in RATES]
    ones = [nn.Parameter(torch.ones(3, 5)) for _ in range(2)]
    first, second = (StackedAdamW(p, rates, steps=9) for p in ones)
    for k in range(6):
        gradient, clip = torch.full((3, 5), 0.1 * (k + 1)), torch.ones(3)
        first.update(gradient, clip, clip > 0)
        if k == 2:
            with torch.no_grad():
                ones[1].copy_(ones[0])
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        if k > 2:
            second.update(gradient, clip, clip > 0)
    assert torch.equal(*ones)


class Nesterov(Optimizer):
    """An optimiser of one's own."""

    def adamw(self, parameters, device):
        return torch.optim.NAdam(parameters, lr=self.lr)


class Cosine(Optimizer):
    """A rate of one's own, which a stack keeps."""

    def factor(self, step, steps):
        return 0.5


def test_a_stack_refuses_an_optimiser_of_ones_own_by_name():
    numbers = {"lr": 1.0, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0, "warmup_steps": 0, "decay_to": 1.0}
    flat = nn.Parameter(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"optimizer=.*Nesterov: .* allowed: optimizer=adamw, or trainer=solo with"):
        StackedAdamW(flat, [Nesterov(**numbers)], 3)
    assert StackedAdamW(flat, [Cosine(**numbers)], 3)._factors.tolist() == [0.5] * 4


@pytest.mark.parametrize("gpu", [False, True])
def test_an_optimiser_of_ones_own_is_refused_before_anything_is_written(tmp_path, monkeypatch, gpu):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit, "is_captured", lambda cfg: gpu and cfg.trainer.compile is not False)
    own = f"optimizer._target_={__name__}.Nesterov"
    with config_loader() as loader:
        solo, stacked, eager = (
            compose_jobs(loader, "train", [own, *words], multirun=False)
            for words in ([], ["trainer=stacked"], ["trainer.compile=false"])
        )
    with pytest.raises(RunError, match=rf"optimizer={__name__}.Nesterov: .* allowed: "):
        check_jobs(stacked)
    check_jobs(eager)
    if gpu:
        with pytest.raises(RunError, match=rf"optimizer={__name__}.Nesterov: .* allowed: "):
            check_jobs(solo)
        with pytest.raises(RunError, match="Nesterov"):
            train_and_score(solo[0])
    else:
        check_jobs(solo)
    with pytest.raises(RunError, match="Nesterov"):
        train_and_score_stack(solo)
    assert list(tmp_path.iterdir()) == []
