"""Sliced Wasserstein distance of patches, band by band: a judge without a network (Karras et al. 2018, sec. 5)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.data.source import Source
from flowzoo.metrics.metric import HeldOut, Made
from flowzoo.randomness import generator

VERSION = 1
EDGE = 7  # pixels of a patch
PATCHES = 16  # of an image in each band
DIRECTIONS = 128
SMALLEST = 16  # pixels of the coarsest band's shorter edge, at least
_CHUNK = 500
_TAPS = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16  # Burt and Adelson 1983


def bands(images: Tensor) -> list[Tensor]:
    """The Laplacian pyramid of uint8 [n, C, H, W], finest first and the small image last: float32, in 0..1.

    Edges are halved while both are even and the shorter one is 32 or more.
    """
    x, out = images.float() / 255, []
    while min(x.shape[-2:]) >= 2 * SMALLEST and not any(edge % 2 for edge in x.shape[-2:]):
        small = filtered(x, _TAPS)[..., ::2, ::2]
        out.append(x - _enlarged(small))
        x = small
    return [*out, x]


def filtered(x: Tensor, taps: Tensor) -> Tensor:
    """Images [n, C, H, W] under a symmetric filter, an odd number of taps along each axis; reflected at the edges."""
    radius, kernel = len(taps) // 2, taps.to(x.device).expand(x.shape[1], 1, 1, -1)
    y = F.conv2d(F.pad(x, (radius, radius, 0, 0), "reflect"), kernel, groups=x.shape[1])
    return F.conv2d(F.pad(y, (0, 0, radius, radius), "reflect"), kernel.mT, groups=x.shape[1])


def _enlarged(x: Tensor) -> Tensor:
    wide = x.new_zeros(*x.shape[:-2], 2 * x.shape[-2], 2 * x.shape[-1])
    wide[..., ::2, ::2] = x
    return filtered(wide, 2 * _TAPS)


def patches(band: Tensor, first: int, level: int) -> Tensor:
    """16 patches of 7 x 7 of each image of a band [n, C, H, W]: [n, 16, C 49].

    Where they lie is a function of the image's number, `first` onward, and of the band's level.
    """
    return _cut(band, _spots(band, first, level))


def _spots(band: Tensor, first: int, level: int) -> Tensor:
    """Top and left of the patches of each image, int64 [n, 16, 2], on the band's device."""
    n, (height, width) = len(band), band.shape[-2:]
    u = [torch.rand(PATCHES, 2, generator=generator(level, first + i, "patches")) for i in range(n)]
    return (torch.stack(u) * torch.tensor([height - EDGE + 1, width - EDGE + 1])).long().to(band.device)


def _cut(band: Tensor, spots: Tensor) -> Tensor:
    windows = band.unfold(2, EDGE, 1).unfold(3, EDGE, 1)  # views
    image = torch.arange(len(band), device=band.device)[:, None]
    return windows[image, :, spots[..., 0], spots[..., 1]].flatten(2)


def directions(dim: int) -> Tensor:
    """Unit vectors, [dim, 128]."""
    x = torch.randn(dim, DIRECTIONS, generator=generator(VERSION, dim, "directions"))
    return F.normalize(x, dim=0)


def wasserstein(one: Tensor, other: Tensor) -> Tensor:
    """The mean over directions of the distance of two empirical laws: sorted [..., n, 128] and [..., m, 128] -> [...].

    Where m is not n, of the other's quantiles at the n steps.
    """
    n, m = one.shape[-2], other.shape[-2]
    if n != m:
        steps = (torch.arange(n, device=one.device) + 0.5) / n
        other = other.index_select(-2, (steps * m).long())
    return (one - other).abs().mean((-2, -1))


class Reference(NamedTuple):
    """A band of the held-out images."""

    mean: Tensor  # of the numbers of patches, [C 49], one value a channel; the next as well
    std: Tensor
    sorted: Tensor  # [n 16, 128]


class SlicedWasserstein:
    """`swd`: the mean of the bands; `swd_fine` and `swd_coarse`: the finest and the coarsest of them.

    Patches are normalised by the mean and deviation of each channel over the held-out images, not of each set by its
    own as Karras et al. have it, so that a shift of colours counts.
    """

    columns: Mapping[str, Literal["min", "max"]] = dict.fromkeys(("swd", "swd_fine", "swd_coarse"), "min")
    prompts: Sequence[str] | None = None
    identity: Mapping[str, Any] = {"name": "swd", "version": VERSION}
    quality: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.references: list[Reference] = []

    def begin(self, held_out: HeldOut) -> str:
        """Looks at as many held-out images as there are samples, where there are so many."""
        if min(held_out.source.size) < EDGE:
            raise ValueError(f"metric=swd on images of {held_out.source.size}: allowed are edges of {EDGE} and more")
        found = _patches_of(held_out.source, min(held_out.n, held_out.samples))
        self.references = []
        for numbers in found:
            channels = numbers.reshape(len(numbers), -1, EDGE * EDGE)
            mean, std = (getattr(channels, name)((0, 2)).repeat_interleave(EDGE * EDGE) for name in ("mean", "std"))
            std = std.clamp(min=1e-6)
            projected = ((numbers - mean) / std) @ directions(numbers.shape[1])
            self.references.append(Reference(mean, std, projected.sort(0).values))
        return ""

    def statistics(self) -> "Sliced":
        return Sliced(self.references)


def _patches_of(source: Source, n: int) -> list[Tensor]:
    """Of `n` evenly spaced images, for each band [n 16, C 49]."""
    indices = [i * len(source) // n for i in range(n)]
    each: list[list[Tensor]] = []
    for first in range(0, n, _CHUNK):
        images = torch.from_numpy(source.images(indices[first : first + _CHUNK]))
        each.append([patches(band, first, level).flatten(0, 1) for level, band in enumerate(bands(images))])
    return [torch.cat(parts) for parts in zip(*each, strict=True)]


class Sliced:
    def __init__(self, references: Sequence[Reference]) -> None:
        self._references, self._seen = references, 0
        self._projected: list[list[Tensor]] = [[] for _ in references]  # of each band, batches [M, n 16, 128]

    def update(self, made: Made) -> None:
        m, n = made.images.shape[:2]
        finite = made.features.isfinite().all(-1)[..., None, None]
        images = made.images.flatten(0, 1)
        for level, (band, reference) in enumerate(zip(bands(images), self._references, strict=True)):
            mean, std = (x.to(band.device) for x in (reference.mean, reference.std))
            axes = directions(len(mean)).to(band.device)
            members = band.reshape(m, n, *band.shape[1:])
            spots = _spots(members[0], self._seen, level)  # the same for all members
            each = [((_cut(one, spots) - mean) / std) @ axes for one in members]
            projected = torch.stack(each).masked_fill(~finite, torch.nan)
            self._projected[level].append(projected.flatten(1, 2))
        self._seen += n

    def values(self) -> list[dict[str, float | None]]:
        found = []
        for reference, batches in zip(self._references, self._projected, strict=True):
            known = reference.sorted.to(batches[0].device)
            whole = torch.cat(batches, 1)
            found.append(torch.stack([wasserstein(one.sort(0).values, known) for one in whole]))
        each = torch.stack(found, 1).tolist()  # [M, bands]
        return [{"swd": sum(own) / len(own), "swd_fine": own[0], "swd_coarse": own[-1]} for own in each]
