"""Exponential moving average of the backbone's weights (paper, sec. B.3: every 100 steps at decay 0.99)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flowzoo.training.sharded import like, whole


class EMA:
    """Averages the parameters of `backbone` alone, in float32 or better.

    `bias_correction=True` starts the average at zero and divides by 1 - decay^n, as Adam does, so that a short run does
    not still hold its initial weights; `False` is the paper's plain average, which starts at the initial weights.
    Before the first update the average is the network as it is.
    """

    def __init__(self, backbone: nn.Module, every: int, decay: float, bias_correction: bool) -> None:
        self.every, self.decay, self.bias_correction = every, decay, bias_correction
        self.updates = 0
        self.shadow = {name: self._start(p) for name, p in backbone.named_parameters()}

    def _start(self, p: Tensor) -> Tensor:
        p = p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
        return p.zero_() if self.bias_correction else p

    @torch.no_grad()
    def update(self, backbone: nn.Module, step: int) -> None:
        """To be called after optimiser step number `step` (counted from 1)."""
        if step % self.every:
            return
        self.updates += 1
        shadows = list(self.shadow.values())
        values = [p.detach().to(s.dtype) for p, s in zip(backbone.parameters(), shadows, strict=True)]
        torch._foreach_lerp_(shadows, values, 1 - self.decay)

    def weights(self) -> dict[str, Tensor] | None:
        """The averaged parameters by name; None before the first update."""
        return average(vars(self))

    @contextmanager
    def applied(self, backbone: nn.Module) -> Iterator[None]:
        """Within the block `backbone` holds the average; afterwards its own weights again, bit for bit.

        The values are copied in place, so that compiled code and CUDA graphs keep their addresses.
        """
        averaged = self.weights()
        if averaged is None:
            yield
            return
        own = {name: p.detach().clone() for name, p in backbone.named_parameters()}
        copy_parameters(backbone, averaged)
        try:
            yield
        finally:
            copy_parameters(backbone, own)

    def to(self, device: torch.device) -> None:
        self.shadow = {name: s.to(device) for name, s in self.shadow.items()}

    def split_as(self, backbone: nn.Module) -> None:
        """Each process keeps the share of the average that it has of the weights (flowzoo/training/sharded.py)."""
        self.shadow = {name: like(self.shadow[name], p) for name, p in backbone.named_parameters()}

    def state_dict(self) -> dict:
        """Holds its own decay and correction: a checkpoint must say by itself what its average is.

        Every process takes part.
        """
        return {
            "updates": self.updates,
            "decay": self.decay,
            "bias_correction": self.bias_correction,
            "shadow": {name: whole(s).clone() for name, s in self.shadow.items()},
        }

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError where the names or the settings differ."""
        if state["shadow"].keys() != self.shadow.keys():
            raise ValueError("the checkpoint's EMA belongs to another backbone")
        if (state["decay"], state["bias_correction"]) != (self.decay, self.bias_correction):
            raise ValueError(f"the checkpoint's EMA has decay {state['decay']}, this run has {self.decay}")
        self.updates = state["updates"]
        for name, s in self.shadow.items():
            s.copy_(like(state["shadow"][name], s))


def average(state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The averaged parameters from an EMA's state, also from one that was read from a checkpoint."""
    if not state["updates"]:
        return None
    scale = 1 / (1 - state["decay"] ** state["updates"]) if state["bias_correction"] else 1.0
    return {name: s * scale for name, s in state["shadow"].items()}


@torch.no_grad()
def copy_parameters(backbone: nn.Module, values: dict[str, Tensor]) -> None:
    """Writes `values` into the parameters in place. Raises KeyError for a parameter that has none."""
    for name, p in backbone.named_parameters():
        p.copy_(values[name])
