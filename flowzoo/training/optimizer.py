"""AdamW with warm-up and decay: of one run, and of many whose weights are rows of one tensor."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from flowzoo.training.adamw import adamw_step


@dataclass(frozen=True)
class Optimizer:
    """AdamW with linear warm-up (paper, sec. B.3), then linear decay to `decay_to` times the rate at the last step."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    warmup_steps: int
    decay_to: float

    def factor(self, step: int, steps: int) -> float:
        """The factor on `lr` for the step that follows `step` finished ones."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        done = max(0, step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return warm * (1 - (1 - self.decay_to) * min(1.0, done))

    def adamw(self, parameters: Iterable[nn.Parameter], device: torch.device) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            parameters,
            lr=self.lr,
            betas=(self.betas[0], self.betas[1]),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=device.type == "cuda",
        )

    def schedule(self, adamw: torch.optim.Optimizer, steps: int) -> LambdaLR:
        return LambdaLR(adamw, lambda step: self.factor(step, steps))


def is_stackable(kind: Any) -> bool:
    """Whether a stack updates as such optimisers do: ours, or one derived from it that changes its rates alone."""
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        return False
    return kind.adamw is Optimizer.adamw and kind.schedule is Optimizer.schedule


def not_stackable(name: str) -> str:
    """Why an optimiser of one's own is refused, by the name of its class."""
    return (
        f"optimizer={name}: stacks, and runs captured as CUDA graphs on a GPU, are updated by flowzoo's AdamW alone; "
        "allowed: optimizer=adamw, or trainer=solo with trainer.compile=false or trainer.accelerator=cpu"
    )


class StackedAdamW(torch.optim.Optimizer):
    """torch.optim.AdamW for V variants, rows of `flat` [V, P], each with its own rate, decay and gradient clipping.

    The step counter, the rates and the mask live on the device: nothing here waits for it, so that `update` can be part
    of a CUDA graph. The optimisers must agree in all but lr and weight_decay.
    """

    def __init__(self, flat: nn.Parameter, optimizers: Sequence[Optimizer], steps: int) -> None:
        first = optimizers[0]
        for kind in map(type, optimizers):
            if not is_stackable(kind):
                raise ValueError(not_stackable(f"{kind.__module__}.{kind.__qualname__}"))
        # lr is named for those who ask any optimiser for it; each row has its own
        super().__init__([flat], {"lr": first.lr, "betas": tuple(first.betas), "eps": first.eps})
        self.flat = flat
        column: Callable[[list[float]], Tensor] = lambda x: torch.tensor(x, dtype=torch.float64, device=flat.device)  # noqa: E731
        self._lr = column([o.lr for o in optimizers])
        self._weight_decay = column([o.weight_decay for o in optimizers])
        self._factors = column([first.factor(step, steps) for step in range(steps + 1)])
        self.state[flat] = {
            "step": torch.zeros((), device=flat.device),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        state = self.state[self.flat]
        state["step"] = state["step"].to(self.flat.device)

    @property
    def finished(self) -> Tensor:
        """Number of updates so far, int64 []."""
        return self.state[self.flat]["step"].long()

    def step(self, closure: Any = None) -> Any:
        """What a trainer calls; the closure computes gradients and calls `update`."""
        if closure is not None:
            with torch.enable_grad():
                return closure()

    @torch.no_grad()
    def update(self, gradient: Tensor, clip: Tensor, alive: Tensor, copy: Tensor | None = None) -> None:
        """One step along `gradient` [V, P], in any precision, times `clip` [V].

        Where `alive` [V] is False the row keeps its weights, whatever its gradient is. `copy` [V, P], in a precision of
        its own, has the new weights afterwards. On a GPU this is one pass over memory.
        """
        beta1, beta2 = self.defaults["betas"]
        state, dtype = self.state[self.flat], self.flat.dtype
        finished = self.finished.reshape(1)
        state["step"] += 1
        t = state["step"].double()
        lr = torch.where(alive, self._lr * self._factors.index_select(0, finished), 0)
        decay, rate = (1 - lr * self._weight_decay).to(dtype), (lr / (1 - beta1**t)).to(dtype)
        root_bias = torch.sqrt(1 - beta2**t).to(dtype)
        adamw_step(
            self.flat.detach(), copy, state["exp_avg"], state["exp_avg_sq"], gradient,
            alive, clip, decay, rate, root_bias, (beta1, beta2), self.defaults["eps"],
        )  # fmt: skip


def clip_factors(norms: Tensor, bound: float | None) -> Tensor:
    """What nn.utils.clip_grad_norm_ multiplies each of the gradients with, from their norms [V]."""
    return (((bound if bound is not None else math.inf) / (norms + 1e-6)).clamp(max=1.0)).to(norms.dtype)
