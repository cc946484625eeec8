"""AdamW with warm-up and decay, for V variants whose weights are the rows of one tensor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowzoo.training.adamw import adamw_step


@dataclass(frozen=True)
class Optimizer:
    """AdamW with linear warm-up (paper, sec. B.3), then linear decay to `decay_to` times the rate at the last step."""

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 1000
    decay_to: float = 1.0

    def factor(self, step: int, steps: int) -> float:
        """The factor on `lr` for the step that follows `step` finished ones."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        done = max(0, step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return warm * (1 - (1 - self.decay_to) * min(1.0, done))


class CosineDecay(Optimizer):
    """AdamW with linear warm-up, then half a cosine down to 0 at the last step; `decay_to` is not used."""

    def factor(self, step: int, steps: int) -> float:
        """As `Optimizer.factor`."""
        rest = (step - self.warmup_steps) / max(steps - self.warmup_steps, 1)
        return min((step + 1) / max(self.warmup_steps, 1), 0.5 * (1 + math.cos(math.pi * max(rest, 0.0))))


def is_ours(kind: Any) -> bool:
    """Whether rows are updated as such an optimiser says: ours, or one derived from it that changes its rates alone."""
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        return False
    below = kind.__mro__[: kind.__mro__.index(Optimizer)]
    own = {name for one in below for name in vars(one) if not name.startswith("__") and callable(getattr(one, name))}
    return own <= {"factor"}


def not_ours(name: str) -> str:
    """Why an optimiser of one's own is refused, by the name of its class."""
    return (
        f"optimizer={name}: weights are updated by flowzoo's AdamW alone; allowed: optimizer=adamw, or a class derived "
        "from flowzoo.training.optimizer.Optimizer that changes `factor` and nothing else"
    )


class RowAdamW:
    """torch.optim.AdamW for V variants, the rows of a tensor [V, P], each with its own rate, decay and clipping.

    The step counter, the rates and the mask live on the device: nothing here waits for it, so that `update` can be part
    of a CUDA graph. The optimisers must agree in all but lr and weight_decay.
    """

    def __init__(
        self, rows: Tensor, optimizers: Sequence[Optimizer], steps: int, decayed: Tensor | None = None
    ) -> None:
        """`rows` [V, P] are updated in place; `steps` is the length of the whole training.

        `decayed`, bool [P]: the columns that weight decay is for; None: all.
        """
        first = optimizers[0]
        for kind in map(type, optimizers):
            if not is_ours(kind):
                raise ValueError(not_ours(f"{kind.__module__}.{kind.__qualname__}"))
        self._decayed = None if decayed is None else decayed.to(rows.device)
        self.rows, self.betas, self.eps = rows, (first.betas[0], first.betas[1]), first.eps
        self._lr = self._column([o.lr for o in optimizers])
        self._weight_decay = self._column([o.weight_decay for o in optimizers])
        self._factors = self._column([first.factor(step, steps) for step in range(steps + 1)])
        self.finished = torch.zeros((), dtype=torch.int64, device=rows.device)  # number of updates so far
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(rows), torch.zeros_like(rows)

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.rows.device)

    @torch.no_grad()
    def update(self, gradient: Tensor, clip: Tensor, alive: Tensor, copy: Tensor | None = None) -> None:
        """One step along `gradient` [V, P], in any precision, times `clip` [V].

        Where `alive` [V] is False the row keeps its weights, whatever its gradient is. `copy` [V, P], in a precision of
        its own, has the new weights afterwards. On a GPU this is one pass over memory,
        and another one where only some columns decay.
        """
        beta1, beta2 = self.betas
        dtype = self.rows.dtype
        factor = self._factors.index_select(0, self.finished.reshape(1))
        self.finished += 1
        t = self.finished.double()
        lr = torch.where(alive, self._lr * factor, 0)
        decay, rate = (1 - lr * self._weight_decay).to(dtype), (lr / (1 - beta1**t)).to(dtype)
        root_bias = torch.sqrt(1 - beta2**t).to(dtype)
        if self._decayed is not None:  # by itself, so that the one pass stays as it is
            self.rows.mul_(torch.where(self._decayed, decay[:, None], 1))
            decay = torch.ones_like(decay)
        adamw_step(
            self.rows, copy, self.exp_avg, self.exp_avg_sq, gradient,
            alive, clip, decay, rate, root_bias, self.betas, self.eps,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """`step` [] and the moments [V, P]: the tensors themselves, not copies."""
        return {"step": self.finished, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes the values of what `state` gave."""
        for own, value in zip(self.state().values(), (state[name] for name in self.state()), strict=True):
            own.copy_(value)


def clip_factors(norms: Tensor, bound: float | None) -> Tensor:
    """What nn.utils.clip_grad_norm_ multiplies each of the gradients with, from their norms [V]."""
    return (((bound if bound is not None else math.inf) / (norms + 1e-6)).clamp(max=1.0)).to(norms.dtype)
