"""Mean and covariance of features, accumulated in float64 and kept as sums, so that they add up in any order."""

from pathlib import Path

import torch
from torch import Tensor

_ROWS = 1024  # converted to float64 at once: they stay in the cache
_BLOCKS = 4


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
        self.count += len(features)
        total, outer = _sums(features.detach())
        self.total += total.cpu()
        self.outer += outer.cpu()
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


class StackedMoments:
    """The moments of M sets of equal size at once, kept on the features' device until they are asked for."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | None = None  # [M, D]
        self.outer: Tensor | None = None  # [M, D, D]

    def update(self, features: Tensor) -> None:
        """Add features [M, n, D]."""
        x = features.detach().double()
        self.count += x.shape[1]
        total, outer = x.sum(1), x.mT @ x
        self.total = total if self.total is None else self.total + total
        self.outer = outer if self.outer is None else self.outer + outer

    def each(self) -> list[Moments]:
        """Of each set; none before the first update."""
        if self.total is None or self.outer is None:
            return []
        made = []
        for total, outer in zip(self.total.cpu(), self.outer.cpu(), strict=True):
            moments = Moments(len(total))
            moments.count, moments.total, moments.outer = self.count, total, outer
            made.append(moments)
        return made


def _sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of the rows of x [n, D], [D], and of their outer products, [D, D], float64.

    Of the products only the blocks from the diagonal on are computed.
    """
    dim = x.shape[1]
    edge = -(-dim // _BLOCKS)
    total = torch.zeros(dim, dtype=torch.float64, device=x.device)
    outer = torch.zeros(dim, dim, dtype=torch.float64, device=x.device)
    for part in x.split(_ROWS):
        rows = part.double()
        total += rows.sum(0)
        for i in range(0, dim, edge):
            outer[i : i + edge, i:].addmm_(rows[:, i : i + edge].T, rows[:, i:])
    return total, outer.triu() + outer.triu(1).T
