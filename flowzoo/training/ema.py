"""Exponential moving average of the weights (paper, sec. B.3: every 100 steps at decay 0.99)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class EMA:
    """Averages the weights of V variants, the rows of a tensor [V, P], in float32 or better.

    `bias_correction=True` starts the average at zero and divides by 1 - decay^n, as Adam does, so that a short run does
    not still hold its initial weights; `False` is the paper's plain average, which starts at the initial weights.
    Before the first update the average is the weights as they are.
    """

    shadow: Tensor  # [V, P]

    def __init__(self, every: int = 100, decay: float = 0.99, bias_correction: bool = True) -> None:
        self.every, self.decay, self.bias_correction = every, decay, bias_correction
        self.updates = 0

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Begins with the weights `rows` [V, P], on their device."""
        self.updates = 0
        kept = rows.to(torch.promote_types(rows.dtype, torch.float32), copy=True)
        self.shadow = kept.zero_() if self.bias_correction else kept

    @torch.no_grad()
    def update(self, rows: Tensor, step: int) -> None:
        """To be called after optimiser step number `step`, counted from 1."""
        if step % self.every == 0:
            self.updates += 1
            self.shadow.lerp_(rows.to(self.shadow.dtype), 1 - self.decay)

    def average(self) -> Tensor | None:
        """The averaged weights [V, P]; None before the first update."""
        return average(self.state())

    def state(self) -> dict[str, Any]:
        """Holds its own decay and correction: a checkpoint must say by itself what its average is."""
        told = {"updates": self.updates, "decay": self.decay, "bias_correction": self.bias_correction}
        return {**told, "shadow": self.shadow}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave. ValueError where the settings differ."""
        if (state["decay"], state["bias_correction"]) != (self.decay, self.bias_correction):
            raise ValueError(f"the checkpoint's EMA has decay {state['decay']}, this run has {self.decay}")
        self.updates = state["updates"]
        self.shadow.copy_(state["shadow"])


def average(state: Mapping[str, Any]) -> Any:
    """The averaged weights from an EMA's state, whose shadow is a tensor, or tensors by name as in a checkpoint."""
    if not state["updates"]:
        return None
    scale = 1 / (1 - state["decay"] ** state["updates"]) if state["bias_correction"] else 1.0
    shadow = state["shadow"]
    return shadow * scale if isinstance(shadow, Tensor) else {name: s * scale for name, s in shadow.items()}
