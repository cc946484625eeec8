"""AdamW with warm-up and decay: of one run, and of many whose weights are rows of one tensor."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR


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


class StackedAdamW(torch.optim.Optimizer):
    """torch.optim.AdamW for V variants, rows of `flat` [V, P], each with its own rate, decay and gradient clipping.

    The step counter, the rates and the mask live on the device: nothing here waits for it. Where `alive` is False the
    row keeps its weights, whatever its gradient is. The optimisers must agree in all but lr and weight_decay.
    """

    def __init__(self, flat: nn.Parameter, optimizers: Sequence[Optimizer], steps: int) -> None:
        first = optimizers[0]
        # lr is named for those who ask any optimiser for it; each row has its own
        super().__init__([flat], {"lr": first.lr, "betas": tuple(first.betas), "eps": first.eps})
        self.flat = flat
        column: Callable[[list[float]], Tensor] = lambda x: torch.tensor(x, dtype=torch.float64, device=flat.device)  # noqa: E731
        self._lr = column([o.lr for o in optimizers])[:, None]
        self._weight_decay = column([o.weight_decay for o in optimizers])[:, None]
        self._factors = column([first.factor(step, steps) for step in range(steps + 1)])
        self.alive = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        self.clip = torch.ones(len(flat), dtype=flat.dtype, device=flat.device)  # factors on the gradients
        self.state[flat] = {
            "step": torch.zeros((), device=flat.device),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        state = self.state[self.flat]
        state["step"] = state["step"].to(self.flat.device)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        assert self.flat.grad is not None
        (beta1, beta2), eps = self.defaults["betas"], self.defaults["eps"]
        flat, state, alive = self.flat, self.state[self.flat], self.alive[:, None]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        # Zeroed by choice, never by a product: NaN times 0 is NaN.
        g = torch.where(alive, self.flat.grad * self.clip[:, None], 0)
        finished = state["step"].long().reshape(1)
        state["step"] += 1
        t = state["step"].double()
        lr = torch.where(alive, self._lr * self._factors.index_select(0, finished), 0)
        # Loshchilov and Hutter 2019, algorithm 2, in torch.optim.AdamW's order
        flat.mul_((1 - lr * self._weight_decay).to(flat.dtype))
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        root = v.sqrt().div_(torch.sqrt(1 - beta2**t)).add_(eps)
        flat.sub_((m / root).mul_((lr / (1 - beta1**t)).to(flat.dtype)))
        return loss


def clip_factors(norms: Tensor, bound: float | None) -> Tensor:
    """What nn.utils.clip_grad_norm_ multiplies each of the gradients with, from their norms [V]."""
    return (((bound if bound is not None else math.inf) / (norms + 1e-6)).clamp(max=1.0)).to(norms.dtype)
