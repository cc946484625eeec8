"""Every optimiser that works on rows moves each of them as torch's own, or a plain loop, moves it alone."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowzoo.training.ema import EMA, check_average
from flowzoo.training.optimizer import (
    SGD,
    Adam,
    Lion,
    Muon,
    NAdam,
    Optimizer,
    RowOptimizer,
    TorchOptimizer,
    clip_factors,
    orthogonal,
)
from flowzoo.training.rate import Cosine, Linear
from flowzoo.training.updates import RowUpdates, check_rows, check_torch, updates_of

SHAPES = {"wide": (3, 5), "bias": (5,), "tall": (6, 2), "kernel": (2, 1, 2, 2)}
SIZES = [math.prod(shape) for shape in SHAPES.values()]
P = sum(SIZES)
RATES = [(1e-2, 0.0), (3e-2, 0.1), (1e-3, 0.5)]
RATE = Linear(warmup_steps=3, decay_to=0.2)
STEPS = 12


def cut(rows: Tensor) -> dict[str, Tensor]:
    pieces = rows.split(SIZES, dim=-1)
    return {name: x.unflatten(-1, shape) for (name, shape), x in zip(SHAPES.items(), pieces, strict=True)}


class PlainLion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2, line by line."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                c = beta1 * m + (1 - beta1) * p.grad
                p -= group["lr"] * (c.sign() + group["weight_decay"] * p)
                self.state[p]["m"] = beta2 * m + (1 - beta2) * p.grad


def muon(params: Sequence[nn.Parameter], **told: Any) -> list[torch.optim.Optimizer]:
    """torch's Muon takes weights of two axes only."""
    own = {key: told.pop(key) for key in ("momentum", "nesterov", "ns_steps")}
    matrices, rest = ([p for p in params if (p.ndim == 2) is yes] for yes in (True, False))
    common = {key: told[key] for key in ("lr", "weight_decay")}
    first = torch.optim.Muon(matrices, **common, **own, adjust_lr_fn="match_rms_adamw")
    return [first, torch.optim.AdamW(rest, **told)]


def one(kind: Callable[..., torch.optim.Optimizer]) -> Callable[..., list[torch.optim.Optimizer]]:
    return lambda params, **told: [kind(params, **told)]


KINDS: list[tuple[RowOptimizer, Callable[..., list[torch.optim.Optimizer]]]] = [
    (Optimizer(betas=(0.9, 0.99)), one(torch.optim.AdamW)),
    (Adam(betas=(0.8, 0.99), eps=1e-6), one(torch.optim.Adam)),
    (SGD(momentum=0.0), one(torch.optim.SGD)),
    (SGD(momentum=0.8, dampening=0.3), one(torch.optim.SGD)),
    (SGD(momentum=0.9, nesterov=True), one(torch.optim.SGD)),
    (NAdam(betas=(0.9, 0.99)), one(torch.optim.NAdam)),
    (NAdam(momentum_decay=0.1, decoupled_weight_decay=True), one(torch.optim.NAdam)),
    (Lion(betas=(0.9, 0.98)), one(PlainLion)),
    (Muon(betas=(0.9, 0.99)), muon),
    (Muon(momentum=0.8, nesterov=False, ns_steps=3), muon),
]


@pytest.fixture
def double() -> Iterator[None]:
    """torch's NAdam keeps one of its numbers in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize(("kind", "alone"), KINDS, ids=lambda x: repr(x) if isinstance(x, RowOptimizer) else "")
def test_rows_move_as_each_moves_alone(kind: Any, alone: Callable[..., Any], bound: float | None) -> None:
    gen = torch.Generator().manual_seed(0)
    start = torch.randn(3, P, generator=gen, dtype=torch.float64)
    grads = torch.randn(STEPS, 3, P, generator=gen, dtype=torch.float64) * torch.tensor([[0.01], [1.0], [10.0]])
    optimizers = [replace(kind, lr=lr, weight_decay=decay) for lr, decay in RATES]
    rows = start.clone()
    together = RowUpdates(rows, optimizers, RATE, STEPS, cut)
    for g in grads:
        together.update(g, clip_factors(g.norm(dim=1), bound), torch.ones(3, dtype=torch.bool))
    for i, one_ in enumerate(optimizers):
        params = {name: nn.Parameter(x.clone()) for name, x in cut(start[i]).items()}
        each = alone(list(params.values()), **vars(one_))
        for step, g in enumerate(grads):
            for name, x in cut(g[i]).items():
                params[name].grad = x.clone()
            nn.utils.clip_grad_norm_(params.values(), math.inf if bound is None else bound)
            for optimizer in each:
                for group in optimizer.param_groups:
                    group["lr"] = one_.lr * RATE.factor(step, STEPS)
                optimizer.step()
        for name, x in cut(rows[i]).items():
            torch.testing.assert_close(x, params[name].detach(), rtol=1e-10, atol=1e-10)


def test_the_fast_update_is_the_step() -> None:
    rows = [torch.ones(2, P, dtype=torch.float64) for _ in range(2)]
    optimizers = [Optimizer(lr, weight_decay=decay) for lr, decay in RATES[:2]]
    fast = RowUpdates(rows[0], optimizers, RATE, STEPS, cut)
    kept = [torch.zeros_like(rows[1]) for _ in range(2)]
    lr, decay = (torch.tensor(x, dtype=torch.float64)[:, None] for x in zip(*RATES[:2], strict=True))
    for step in range(4):
        g = torch.full((2, P), 0.3 * (step + 1), dtype=torch.float64)
        fast.update(g, torch.ones(2), torch.ones(2, dtype=torch.bool))
        rate, t = lr * RATE.factor(step, STEPS), torch.tensor(step + 1.0, dtype=torch.float64)
        optimizers[0].step(rows[1], g, rate, decay, t, exp_avg=kept[0], exp_avg_sq=kept[1])
    torch.testing.assert_close(*rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "alone"), KINDS[:1] + KINDS[2:3] + KINDS[-2:-1], ids=["adamw", "sgd", "muon"])
def test_columns_that_do_not_decay_are_a_group_of_their_own_in_torch(kind: Any, alone: Callable[..., Any]) -> None:
    gen = torch.Generator().manual_seed(0)
    start = torch.randn(2, P, generator=gen, dtype=torch.float64)
    decayed = torch.cat([torch.full((n,), name == "tall") for name, n in zip(SHAPES, SIZES, strict=True)])
    optimizers = [replace(kind, lr=lr, weight_decay=decay) for lr, decay in RATES[1:]]
    rows, rate = start.clone(), Cosine(warmup_steps=3)
    together = RowUpdates(rows, optimizers, rate, STEPS, cut, decayed)
    params = [{name: nn.Parameter(x.clone()) for name, x in cut(row).items()} for row in start]
    each = [
        [
            *alone([p for name, p in own.items() if name == "tall"], **vars(o)),
            *alone([p for name, p in own.items() if name != "tall"], **vars(replace(o, weight_decay=0.0))),
        ]
        if not isinstance(o, Muon)
        else [
            muon([own["tall"], own["kernel"]], **vars(o))[0],
            *muon([p for name, p in own.items() if name != "tall"], **vars(replace(o, weight_decay=0.0))),
        ]
        for own, o in zip(params, optimizers, strict=True)
    ]
    for step in range(STEPS):
        gradient = torch.randn(2, P, generator=gen, dtype=torch.float64)
        together.update(gradient, torch.ones(2), torch.ones(2, dtype=torch.bool))
        for own, row, o, several in zip(params, gradient, optimizers, each, strict=True):
            for name, x in cut(row).items():
                own[name].grad = x.clone()
            for optimizer in several:
                for group in optimizer.param_groups:
                    group["lr"] = o.lr * rate.factor(step, STEPS)
                optimizer.step()
    for row, own in zip(rows, params, strict=True):
        for name, x in cut(row).items():
            torch.testing.assert_close(x, own[name].detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS], ids=repr)
def test_a_dead_row_keeps_its_weights_whatever_its_gradient_is(kind: Any) -> None:
    rows = torch.ones(3, P)
    together = RowUpdates(rows, [replace(kind, lr=lr, weight_decay=d) for lr, d in RATES], RATE, 4, cut)
    gradient = torch.ones(3, P)
    gradient[1, :5] = torch.tensor([float("nan"), float("inf"), 1.0, 0.0, -1.0])
    before = rows.clone()
    for _ in range(3):
        together.update(gradient, torch.tensor([1.0, float("nan"), 1.0]), torch.tensor([True, False, True]))
    assert torch.equal(rows[1], before[1])
    assert rows.isfinite().all()
    assert (rows[0] != before[0]).all()


@pytest.mark.parametrize("kind", [Optimizer(), Lion(lr=1e-3)], ids=["fused", "plain"])
def test_a_copy_in_another_precision_follows_the_weights(kind: Any) -> None:
    rows = torch.randn(3, P, generator=torch.Generator().manual_seed(0))
    together, rounded = RowUpdates(rows, [kind] * 3, RATE, 4, cut), rows.bfloat16()
    for _ in range(3):
        together.update(rounded / 3, torch.ones(3), torch.tensor([True, False, True]), rounded)
        assert torch.equal(rounded, rows.bfloat16())


TORCHS = [
    TorchOptimizer(torch.optim.RAdam, lr=1e-2, betas=[0.9, 0.99]),
    TorchOptimizer(torch.optim.Adagrad, lr=1e-2),
    TorchOptimizer(torch.optim.Adafactor, lr=1e-2),
    TorchOptimizer(torch.optim.SGD, lr=1e-2, momentum=0.9),
]


@pytest.mark.parametrize("kind", [*(kind for kind, _ in KINDS), *TORCHS], ids=lambda x: getattr(x, "name", repr(x)))
def test_state_comes_back(kind: Any) -> None:
    rows = [torch.ones(1, P) for _ in range(2)]
    first, second = (updates_of(x, [kind], RATE, 9, cut) for x in rows)
    for k in range(6):
        gradient, clip = torch.full((1, P), 0.1 * (k + 1)), torch.ones(1)
        first.update(gradient, clip, clip > 0)
        if k == 2:
            rows[1].copy_(rows[0])
            second.load(first.state())
        if k > 2:
            second.update(gradient, clip, clip > 0)
    assert torch.equal(*rows)
    assert int(first.finished) == int(second.finished) == 6


@pytest.mark.parametrize("kind", TORCHS, ids=lambda x: x.name)
def test_one_of_torch_moves_a_network_as_it_does_by_itself(kind: TorchOptimizer) -> None:
    gen = torch.Generator().manual_seed(0)
    rows = torch.randn(1, P, generator=gen, dtype=torch.float64)
    params = {name: nn.Parameter(x[0].clone()) for name, x in cut(rows).items()}
    by_itself, copy = kind.made(list(params.values())), rows.float()
    ours = updates_of(rows, [kind], RATE, STEPS, cut)
    assert not ours.captured
    for step in range(STEPS):
        g = torch.randn(1, P, generator=gen, dtype=torch.float64)
        ours.update(g, clip_factors(g.norm(dim=1), 0.5), torch.tensor([True]), copy)
        for name, x in cut(g).items():
            params[name].grad = x[0].clone()
        nn.utils.clip_grad_norm_(params.values(), 0.5)
        by_itself.param_groups[0]["lr"] = kind.lr * RATE.factor(step, STEPS)
        by_itself.step()
    for name, x in cut(rows).items():
        torch.testing.assert_close(x[0], params[name].detach(), rtol=1e-12, atol=1e-12)
    assert torch.equal(copy, rows.float())
    before = rows.clone()
    ours.update(torch.full((1, P), math.nan), torch.ones(1), torch.tensor([False]))
    assert torch.equal(rows, before)


def test_weights_that_do_not_decay_are_a_group_in_torch() -> None:
    decayed = torch.cat([torch.full((n,), name == "tall") for name, n in zip(SHAPES, SIZES, strict=True)])
    rows = torch.ones(1, P)
    updates = updates_of(rows, [TorchOptimizer(torch.optim.SGD, 0.5, weight_decay=0.1)], Linear(0), 1, cut, decayed)
    updates.update(torch.zeros(1, P), torch.ones(1), torch.tensor([True]))
    for name, x in cut(rows).items():
        torch.testing.assert_close(x, torch.full_like(x, 0.95 if name == "tall" else 1.0))


def test_one_of_torch_is_for_one_network() -> None:
    with pytest.raises(
        ValueError, match=r"optimizer=torch\.optim\.radam\.RAdam: it updates one network .* trainer=solo"
    ):
        updates_of(torch.zeros(2, P), TORCHS[:1] * 2, RATE, 3, cut)


def test_what_is_orthogonal_has_singular_values_near_one() -> None:
    matrices = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    found = orthogonal(matrices, 8)
    assert torch.equal(found[1], orthogonal(matrices[1], 8))
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.5
    assert values.max() < 1.3


# what is refused before a run begins


class Forgets(torch.optim.SGD):
    """Its momentum is not in its state_dict."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


class Elsewhere(torch.optim.SGD):
    """Its weights are other tensors."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__([p.detach().clone().requires_grad_() for p in params], lr)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (TorchOptimizer(torch.optim.LBFGS, lr=1.0), "closure"),
        (TorchOptimizer(torch.optim.SparseAdam, lr=1.0), "dense gradients"),
        (TorchOptimizer(torch.optim.Muon, lr=1.0), "2D parameters"),
        (TorchOptimizer(torch.optim.SGD, lr=-1.0), "learning rate"),
        (TorchOptimizer(Forgets, lr=1.0, momentum=0.9), "does not go on from its own state_dict"),
        (TorchOptimizer(Elsewhere, lr=1.0), "weights are what they were"),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_what_cannot_train_is_refused(kind: TorchOptimizer, words: str) -> None:
    with pytest.raises((ValueError, RuntimeError, TypeError), match=words):
        check_torch(kind)


class Own(RowOptimizer):
    """Takes steps as `formula` says."""

    def __init__(self, formula: Callable[..., Any]) -> None:
        self.lr, self.formula = 0.1, formula

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        self.formula(w, g, lr)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (lambda w, g, lr: w - lr * g, "changes no weights"),
        (lambda w, g, lr: w.sub_(lr * (g + w).mean()), "otherwise beside another than alone"),
        (lambda w, g, lr: w.sub_(0.1 * (g + 0.01)), "whose rate and gradient are 0"),
    ],
)
def test_a_formula_that_is_none_of_rows_is_refused(formula: Callable[..., Any], words: str) -> None:
    check_rows(Own(lambda w, g, lr: w.sub_(lr * g)))
    with pytest.raises(ValueError, match=words):
        check_rows(Own(formula))


def test_an_average_that_forgets_is_refused() -> None:
    class Forgetful(EMA):
        def load(self, state: Mapping[str, Any]) -> None:
            """Nothing."""

    check_average(EMA(every=2), EMA(every=2))
    with pytest.raises(ValueError, match="does not go on from its own state"):
        check_average(Forgetful(every=2), Forgetful(every=2))
