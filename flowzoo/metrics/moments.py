"""Mean and covariance of features, accumulated in float64 and kept as sums, so that they add up in any order."""

from pathlib import Path

import torch
from torch import Tensor


class Moments:
    """count, sum [D] and sum of outer products [D, D] of feature vectors, float64 on the CPU."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.count = 0
        self.total = torch.zeros(dim, dtype=torch.float64)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, features: Tensor) -> "Moments":
        """Add features [n, D] of any float type and device."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be [n, {self.dim}], got {list(features.shape)}")
        x = features.detach().double()
        self.count += len(x)
        self.total += x.sum(0).cpu()
        self.outer += (x.T @ x).cpu()
        return self

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets together."""
        if other.dim != self.dim:
            raise ValueError(f"moments of {self.dim} and of {other.dim} dimensions cannot be merged")
        both = Moments(self.dim)
        both.count = self.count + other.count
        both.total, both.outer = self.total + other.total, self.outer + other.outer
        return both

    @property
    def mean(self) -> Tensor:
        """[D]"""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """Unbiased, [D, D]."""
        return (self.outer - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)

    def save(self, path: Path) -> None:
        from safetensors.torch import save_file

        state = {"count": torch.tensor(self.count), "total": self.total, "outer": self.outer}
        save_file(state, path)

    @classmethod
    def load(cls, path: Path) -> "Moments":
        from safetensors.torch import load_file

        state = load_file(path)
        moments = cls(len(state["total"]))
        moments.count, moments.total, moments.outer = int(state["count"]), state["total"], state["outer"]
        return moments
