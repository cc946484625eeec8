"""Mean and covariance of features, accumulated in float64 about a shift and kept as sums, which can be merged."""

from pathlib import Path

import torch
from torch import Tensor

_ROWS = 1024  # converted to float64 at once: they stay in the cache
_BLOCKS = 4


class Moments:
    """count, sum [D] and sum of outer products [D, D] of feature vectors less `shift` [D], float64 on the CPU.

    The shift is the first batch's mean. About zero instead, the mean's square would swallow the variance: at a mean of
    1e8 deviations nothing of it is left in float64 (Chan, Golub and LeVeque 1983).
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.count = 0
        self.shift = torch.zeros(dim, dtype=torch.float64)
        self.total = torch.zeros(dim, dtype=torch.float64)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, features: Tensor) -> "Moments":
        """Add features [n, D] of any float type and device. ValueError for another shape."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be [n, {self.dim}], got {list(features.shape)}")
        features = features.detach()
        if not len(features):
            return self
        if not self.count:
            self.shift = features.mean(0, dtype=torch.float64).cpu()
        self.count += len(features)
        total, outer = _sums(features, self.shift.to(features.device))
        self.total += total.cpu()
        self.outer += outer.cpu()
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets together, about the shift of the first. ValueError for another dimension."""
        if other.dim != self.dim:
            raise ValueError(f"moments of {self.dim} and of {other.dim} dimensions cannot be merged")
        both = Moments(self.dim)
        both.count = self.count + other.count
        both.shift = self.shift if self.count else other.shift
        for one in (self, other):
            moved = one.shift - both.shift
            cross = torch.outer(moved, one.total)
            both.total += one.total + one.count * moved
            both.outer += one.outer + cross + cross.T + one.count * torch.outer(moved, moved)
        return both

    @property
    def mean(self) -> Tensor:
        """[D]"""
        return self.shift + self._offset

    def mean_less(self, other: "Moments") -> Tensor:
        """The difference of the means, [D], without the digits that a mean far from zero would cost."""
        return (self.shift - other.shift) + (self._offset - other._offset)

    @property
    def covariance(self) -> Tensor:
        """Unbiased, [D, D]."""
        return (self.outer - self.count * torch.outer(self._offset, self._offset)) / (self.count - 1)

    @property
    def _offset(self) -> Tensor:
        return self.total / self.count

    def save(self, path: Path) -> None:
        """Write a safetensors file: count, shift, total, outer."""
        from safetensors.torch import save_file

        state = {"count": torch.tensor(self.count), "shift": self.shift, "total": self.total, "outer": self.outer}
        save_file(state, path)

    @classmethod
    def load(cls, path: Path) -> "Moments":
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        state = load_file(path)
        moments = cls(len(state["total"]))
        moments.count = int(state["count"])
        moments.shift, moments.total, moments.outer = state["shift"], state["total"], state["outer"]
        return moments


class StackedMoments:
    """The moments of M sets of equal size at once, kept on the features' device until they are asked for."""

    def __init__(self) -> None:
        self.count = 0
        self.shift: Tensor | None = None  # [M, 1, D]
        self.total: Tensor | None = None  # [M, D]
        self.outer: Tensor | None = None  # [M, D, D]

    def update(self, features: Tensor) -> None:
        """Add features [M, n, D], n > 0, of any float type."""
        x = features.detach()
        if self.shift is None or self.total is None or self.outer is None:
            self.shift = x.mean(1, keepdim=True, dtype=torch.float64)
            m, _, dim = x.shape
            self.total, self.outer = self.shift.new_zeros(m, dim), self.shift.new_zeros(m, dim, dim)
        x = x - self.shift
        self.count += x.shape[1]
        self.total += x.sum(1)
        self.outer.baddbmm_(x.mT, x)

    def each(self) -> list[Moments]:
        """Of each set; none before the first update."""
        if self.shift is None or self.total is None or self.outer is None:
            return []
        made = []
        for shift, total, outer in zip(self.shift[:, 0].cpu(), self.total.cpu(), self.outer.cpu(), strict=True):
            moments = Moments(len(total))
            moments.count, moments.shift, moments.total, moments.outer = self.count, shift, total, outer
            made.append(moments)
        return made


def _sums(x: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of the rows of x - shift, [D], and of their outer products, [D, D]; x [n, D], the rest float64.

    Of the products only the blocks from the diagonal on are computed.
    """
    dim = x.shape[1]
    edge = -(-dim // _BLOCKS)
    total = torch.zeros(dim, dtype=torch.float64, device=x.device)
    outer = torch.zeros(dim, dim, dtype=torch.float64, device=x.device)
    for part in x.split(_ROWS):
        rows = part - shift
        total += rows.sum(0)
        for i in range(0, dim, edge):
            outer[i : i + edge, i:].addmm_(rows[:, i : i + edge].T, rows[:, i:])
    return total, outer.triu() + outer.triu(1).T
