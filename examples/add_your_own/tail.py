"""An average of the weights of your own: their plain mean over the end of the training (Izmailov et al. 2018, SWA)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Tail:
    """The mean of the weights after step `first` and every `every` steps from there on."""

    def __init__(self, first: int, every: int = 1) -> None:
        self.first, self.every, self.n = first, every, 0

    def start(self, rows: Tensor) -> None:
        """`rows` [V, P]: the weights of V variants."""
        self.n, self.mean = 0, torch.zeros_like(rows)

    def update(self, rows: Tensor, step: int) -> None:
        if step >= self.first and (step - self.first) % self.every == 0:
            self.n += 1
            self.mean.lerp_(rows, 1 / self.n)

    def average(self) -> Tensor | None:
        """[V, P]; None before there is one."""
        return self.mean if self.n else None

    def state(self) -> dict[str, Any]:
        """All that training goes on from: tensors [V, P] and numbers."""
        return {"n": self.n, "mean": self.mean}

    def load(self, state: Mapping[str, Any]) -> None:
        self.n = state["n"]
        self.mean.copy_(state["mean"])
