"""2-D positional encodings of image patches: where each patch is (a grid), and how a place becomes a vector (sines)."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn


class Grid(Protocol):
    """Places of h x w patches: `grid(h, w, device)` -> float64 rows [h] and columns [w]; ValueError if it cannot."""

    def __call__(self, h: int, w: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Interpolated:
    """The paper's grid ("varying aspect ratios"): one centre for all; area interpolates, length extends.

    base: edge, in pixels of z, of the square whose neighbouring patches are 1 apart and whose places start at 0 (the
        paper's 256 pixels are 32 of z). patch_size: pixels of z a patch.
    """

    base: float
    patch_size: int

    @classmethod
    def of(cls, size: tuple[int, int], patch_size: int) -> "Interpolated":
        """For training on z of (H, W): the base is the square of its area, so there too patches are 1 apart."""
        height, width = size
        return cls(math.sqrt(height * width), patch_size)

    def __call__(self, h: int, w: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        s = math.sqrt(h * w)  # S / patch, with S^2 the area of this image

        def axis(n: int) -> Tensor:
            # Section 5.3.2: (p - (n_max - s)/2) * base/S for p = 0..n_max - 1, of which the middle n are kept:
            # p = i + (n_max - n)/2, and n_max drops out. Where the paper rounds half a patch, this stays central.
            i = torch.arange(n, dtype=torch.float64, device=device)
            return (i + (s - n) / 2) * (self.base / (s * self.patch_size))

        return axis(h), axis(w)


@dataclass(frozen=True)
class Cropped:
    """The grid of the published SD3 weights: the middle of one square of max_size^2 patches that spans 0..base.

    max_size: patches a side of that square. base: patches a side in training.
    """

    max_size: int
    base: int

    def __call__(self, h: int, w: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        if max(h, w) > self.max_size:
            raise ValueError(f"{h} x {w} patches do not fit into a positional grid of max_size={self.max_size}")

        def axis(n: int) -> Tensor:
            p = torch.arange(n, dtype=torch.float64, device=device) + (self.max_size - n) // 2
            return p * (self.base / self.max_size)

        return axis(h), axis(w)


def sinusoid(places: Tensor, n: int, max_period: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Sines and cosines [..., n] of places [...] at n angular frequencies from 1 down towards 1/max_period.

    In float32 or better whatever autocast says: at 1000, bfloat16 could not tell 4 apart.
    """
    k = torch.arange(n, dtype=torch.promote_types(places.dtype, torch.float32), device=places.device)
    angles = places[..., None] * (-math.log(max_period) * k / n).exp()  # in DiT's order, so that rounding is theirs too
    return angles.sin(), angles.cos()


def encode(grid: Grid, h: int, w: int, width: int, device: torch.device | None = None) -> Tensor:
    """Positional table [h * w, width], float64: the first half of the width tells the column, the second the row."""
    rows, columns = (torch.cat(sinusoid(axis, width // 4), dim=-1) for axis in grid(h, w, device))
    table = torch.cat([columns[None].expand(h, -1, -1), rows[:, None].expand(-1, w, -1)], dim=-1)
    return table.flatten(0, 1)


class PositionalEncoding(nn.Module):
    """Fixed positional encoding: a stored table for the usual size, computed when asked for any other."""

    table: Tensor

    def __init__(self, grid: Grid, size: tuple[int, int], patch_size: int, width: int) -> None:
        """size: (H, W) of the usual z. width must be a multiple of 4 (sine and cosine of two axes)."""
        super().__init__()
        if width % 4:
            raise ValueError(f"width={width} is not a multiple of 4, which the 2-D positional encoding needs")
        self.grid, self.width = grid, width
        self.patches = (size[0] // patch_size, size[1] // patch_size)  # h, w
        table = encode(grid, *self.patches, width).to(torch.get_default_dtype())
        self.register_buffer("table", table, persistent=False)

    def forward(self, h: int, w: int) -> Tensor:
        """Table [h * w, width] for h x w patches."""
        if (h, w) == self.patches:
            return self.table
        return encode(self.grid, h, w, self.width, self.table.device).to(self.table.dtype)
