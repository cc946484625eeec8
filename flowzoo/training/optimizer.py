"""Optimisers. What works on rows updates V variants at once; any of torch's updates one network alone.

Warm-up, decay and clipping are outside of all of them (flowzoo/training/rate.py, clip_factors).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowzoo.training.adamw import adamw_step


class RowOptimizer(ABC):
    """An optimiser whose update is the same formula for every variant: derive from it to add one that stacks take.

    `lr` and `weight_decay` may differ between the variants of a stack, everything else is the same.
    """

    lr: float
    weight_decay: float = 0.0
    kept: ClassVar[tuple[str, ...]] = ("exp_avg",)  # tensors like the weights that last, by name; zeros at first
    counted: ClassVar[Mapping[str, float]] = {}  # numbers that last, the same for all: float64 [], with their start
    by_weight: ClassVar[bool] = False  # step is called for each weight by itself, since its shape matters

    @abstractmethod
    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        """Update weights `w` and what is `kept` or `counted`, in place, from the clipped gradient `g` of w's shape.

        It is [V, P], or with `by_weight` [V, *shape] of one weight after another. `lr` and `decay` are the rate of
        this step and the weight decay, of a shape that broadcasts; `t` [], float64, counts updates from 1.
        It becomes part of a CUDA graph: no branch on the values of tensors, nothing that waits for the device. Where a
        variant has diverged its `lr` and its gradient are 0, and its weights must stay as they are.
        """

    def update(
        self, w: Tensor, kept: Mapping[str, Tensor], gradient: Tensor, *, clip: Tensor, alive: Tensor, lr: Tensor,
        decay: Tensor, decayed: Tensor | None, t: Tensor, copy: Tensor | None,
        cut: Callable[[Tensor], Mapping[str, Tensor]],
    ) -> None:  # fmt: skip
        """One step of all rows `w` [V, P], for `RowUpdates`: masks and clips the gradient, and calls `step`."""
        g = masked(gradient, clip, alive, w.dtype)
        rate, own = lr.to(w.dtype)[:, None], decay.to(w.dtype)[:, None]
        if decayed is not None:
            own = own * decayed
        if not self.by_weight:
            self.step(w, g, rate, own, t, **kept)
        else:
            each = {name: cut(x) for name, x in kept.items() if name in self.kept}
            gradients, decays = cut(g), cut(own.expand(w.shape))
            for name, one in cut(w).items():
                wide = rate.reshape(-1, *(1,) * (one.ndim - 1))
                self.step(one, gradients[name], wide, decays[name], t, **{k: x[name] for k, x in each.items()})
        if copy is not None:
            copy.copy_(w)


def masked(gradient: Tensor, clip: Tensor, alive: Tensor, dtype: torch.dtype) -> Tensor:
    """`gradient` [V, P] times `clip` [V]; 0 where a row is not `alive`, by choice: NaN times 0 is NaN."""
    return torch.where(alive[:, None], gradient.to(dtype) * clip[:, None], 0)


def clip_factors(norms: Tensor, bound: float | None) -> Tensor:
    """What nn.utils.clip_grad_norm_ multiplies each of the gradients with, from their norms [V]."""
    return (((bound if bound is not None else math.inf) / (norms + 1e-6)).clamp(max=1.0)).to(norms.dtype)


@dataclass(frozen=True)
class Optimizer(RowOptimizer):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2), the paper's. Runs are named by what this class is called."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    kept: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def update(
        self, w: Tensor, kept: Mapping[str, Tensor], gradient: Tensor, *, clip: Tensor, alive: Tensor, lr: Tensor,
        decay: Tensor, decayed: Tensor | None, t: Tensor, copy: Tensor | None,
        cut: Callable[[Tensor], Mapping[str, Tensor]],
    ) -> None:  # fmt: skip
        """On a GPU one pass over memory, and another one where only some columns decay."""
        beta1, beta2 = self.betas
        shrink, rate = (1 - lr * decay).to(w.dtype), (lr / (1 - beta1**t)).to(w.dtype)
        root_bias = torch.sqrt(1 - beta2**t).to(w.dtype)
        if decayed is not None:  # by itself, so that the one pass stays as it is
            w.mul_(torch.where(decayed, shrink[:, None], 1))
            shrink = torch.ones_like(shrink)
        adamw_step(
            w, copy, kept["exp_avg"], kept["exp_avg_sq"], gradient,
            alive, clip, shrink, rate, root_bias, (beta1, beta2), self.eps,
        )  # fmt: skip

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        """As `RowOptimizer.step`; `update` does the same faster."""
        w.mul_(1 - lr * decay)
        adam_step(w, g, lr, t, kept["exp_avg"], kept["exp_avg_sq"], self.betas, self.eps)


def adam_step(
    w: Tensor, g: Tensor, lr: Tensor, t: Tensor, m: Tensor, v: Tensor, betas: tuple[float, float], eps: float
) -> None:
    """Kingma and Ba 2015, algorithm 1, in torch.optim's order, in place; shapes as in `RowOptimizer.step`."""
    m.lerp_(g, 1 - betas[0])
    v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
    bias, root_bias = (1 - betas[0] ** t).to(w.dtype), torch.sqrt(1 - betas[1] ** t).to(w.dtype)
    w.sub_(m / (v.sqrt() / root_bias + eps) * (lr / bias))


@dataclass(frozen=True)
class Adam(RowOptimizer):
    """Kingma and Ba 2015; weight decay is part of the gradient, as in torch.optim.Adam."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    kept: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        """As `RowOptimizer.step`."""
        adam_step(w, g + decay * w, lr, t, kept["exp_avg"], kept["exp_avg_sq"], self.betas, self.eps)


@dataclass(frozen=True)
class SGD(RowOptimizer):
    """Gradient descent with momentum, as torch.optim.SGD, whose buffer begins with the first gradient undampened."""

    lr: float = 1e-2
    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    kept: ClassVar[tuple[str, ...]] = ("momentum_buffer",)

    def __post_init__(self) -> None:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"nesterov=true with momentum={self.momentum} and dampening={self.dampening}: allowed is a momentum "
                "greater than 0 without dampening"
            )

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        """As `RowOptimizer.step`."""
        g, buffer = g + decay * w, kept["momentum_buffer"]
        buffer.mul_(self.momentum).add_(g * (1 - self.dampening * (t > 1).double()))
        w.sub_(lr * (g + self.momentum * buffer if self.nesterov else buffer))


@dataclass(frozen=True)
class NAdam(RowOptimizer):
    """Dozat 2016, as torch.optim.NAdam; weight decay is part of the gradient, or by itself as in AdamW if decoupled."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False

    kept: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    counted: ClassVar[Mapping[str, float]] = {"mu_product": 1.0}

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        """As `RowOptimizer.step`."""
        m, v, product = kept["exp_avg"], kept["exp_avg_sq"], kept["mu_product"]
        if self.decoupled_weight_decay:
            w.mul_(1 - lr * decay)
        else:
            g = g + decay * w
        beta1, beta2 = self.betas
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (s * self.momentum_decay)) for s in (t, t + 1))
        product.mul_(mu)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denominator = (v / (1 - beta2**t)).sqrt() + self.eps
        w.sub_(lr * ((1 - mu) / (1 - product) * g + mu_next / (1 - product * mu_next) * m) / denominator)


@dataclass(frozen=True)
class Lion(RowOptimizer):
    """Chen et al. 2023, algorithm 2: the sign of an average, so that every weight moves by `lr`."""

    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        """As `RowOptimizer.step`."""
        m = kept["exp_avg"]
        w.sub_(lr * (torch.sign(m.lerp(g, 1 - self.betas[0])) + decay * w))
        m.lerp_(g, 1 - self.betas[1])


@dataclass(frozen=True)
class Muon(RowOptimizer):
    """Jordan et al. 2024, as torch.optim.Muon, for weights of two axes; AdamW with `betas` and `eps` for the rest.

    A matrix moves along the nearest orthogonal matrix to its momentum, found by five steps of Newton and Schulz in
    bfloat16. Deviation from torch's default, which leaves matrices a rate of their own: steps are as large as AdamW's
    (adjust_lr_fn="match_rms_adamw"; Liu et al. 2025, eq. 4), so that one `lr` is for all weights.
    """

    lr: float = 1e-4
    momentum: float = 0.95
    nesterov: bool = True
    ns_steps: int = 5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    kept: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    by_weight: ClassVar[bool] = True

    def step(self, w: Tensor, g: Tensor, lr: Tensor, decay: Tensor, t: Tensor, **kept: Tensor) -> None:
        """As `RowOptimizer.step`; the momentum of matrices is in `exp_avg`."""
        w.mul_(1 - lr * decay)
        if w.ndim != 3:
            adam_step(w, g, lr, t, kept["exp_avg"], kept["exp_avg_sq"], self.betas, self.eps)
            return
        buffer = kept["exp_avg"].lerp_(g, 1 - self.momentum)
        direction = orthogonal(g.lerp(buffer, self.momentum) if self.nesterov else buffer, self.ns_steps)
        w.sub_(direction.to(w.dtype) * (lr * (0.2 * math.sqrt(max(w.shape[-2:])))))


# of the quintic polynomial (Jordan et al. 2024): the slope at zero is as large as can be
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """[m, n] or [V, m, n] -> bfloat16 with singular values near 1 and the singular vectors of `matrices`.

    On a GPU all at once; on a CPU, where that gains nothing, one after another, each rounded as it would be alone.
    """
    if matrices.ndim == 3 and not matrices.is_cuda:
        return torch.stack([orthogonal(one, steps) for one in matrices])
    a, b, c = NEWTON_SCHULZ
    plus_product = torch.addmm if matrices.ndim == 2 else torch.baddbmm
    x, tall = matrices.to(torch.bfloat16), matrices.shape[-2] > matrices.shape[-1]
    x = x.mT if tall else x
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = plus_product(x, plus_product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class TorchOptimizer:
    """Any class derived from torch.optim.Optimizer: it updates one network by itself, with whatever it keeps."""

    def __init__(self, kind: Callable[..., torch.optim.Optimizer], lr: float, **parameters: Any) -> None:
        """`kind(params, lr=lr, **parameters)` makes it, of the network's weights. Raises what that raises."""
        self.kind, self.lr, self.parameters = kind, lr, parameters

    @property
    def name(self) -> str:
        return f"{self.kind.__module__}.{self.kind.__qualname__}"

    def made(self, weights: list[Any]) -> torch.optim.Optimizer:
        """For weights, or for groups of them as torch takes them."""
        return self.kind(weights, lr=self.lr, **self.parameters)


AnyOptimizer = RowOptimizer | TorchOptimizer


def alone(name: str) -> str:
    """Why an optimiser is refused in a stack of several, by the name of its class."""
    return (
        f"optimizer={name}: it updates one network by itself, so it cannot be in a stack; allowed: trainer=solo (in a "
        "sweep engine=solo), or an optimiser that works on rows: adamw, adam, sgd, nadam, lion, muon, or a class "
        "derived from flowzoo.training.optimizer.RowOptimizer"
    )


def needs_whole_weights(name: str) -> str:
    """Why an optimiser is refused where processes keep shares of each weight, by the name of its class."""
    return (
        f"optimizer={name} with trainer.strategy=sharded: it looks at whole weights, of "
        "which each process has a share; allowed: trainer.strategy=ddp"
    )
