"""What the small CLIP is trained on: a whole captioned set as three tensors on the device, and its augmentation."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.progress import track

if TYPE_CHECKING:
    from flowzoo.data.source import Source


Chunk = tuple[np.ndarray, list[list[bytes]]]


@dataclass
class CaptionedSet:
    """Captions that are equal as tokens have one number, so that equality of captions is equality of numbers."""

    images: Tensor  # uint8 [n, C, H, W]
    choices: Tensor  # int64 [n, A]: caption numbers, the first counts[i] are image i's
    counts: Tensor  # int64 [n]
    tokens: Tensor  # int32 [captions, context_length]

    def to(self, device: torch.device) -> "CaptionedSet":
        return CaptionedSet(*(t.to(device) for t in (self.images, self.choices, self.counts, self.tokens)))

    def batch(self, size: int, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 images [size, C, H, W] and the number of one caption of each, both drawn uniformly, int64 [size]."""
        device = self.images.device
        index = torch.randint(len(self.images), (size,), generator=gen, device=device)
        pick = (torch.rand(size, generator=gen, device=device) * self.counts[index]).long()
        return self.images[index], self.choices[index, pick]


def _chunk(source: "Source", context_length: int, indices: Sequence[int]) -> Chunk:
    from flowzoo.encoders.clip import tokenizer

    images = source.images(indices)  # first: captions are of what stands for an unreadable image
    captions = [source.captions(i) for i in indices]
    distinct = list(dict.fromkeys(c for alternatives in captions for c in alternatives))
    rows = tokenizer(context_length)(distinct).numpy().astype(np.uint16)  # 49,408 tokens fit
    tokens = {caption: row.tobytes() for caption, row in zip(distinct, rows, strict=True)}
    return images, [[tokens[c] for c in alternatives] for alternatives in captions]


def load_set(
    source: "Source", context_length: int, workers: int, indices: Sequence[int] | None = None, chunk: int = 4000
) -> CaptionedSet:
    """All images of `source`, or those of `indices`, with all their captions, read by `workers` processes.

    0: by this one. Workers are forked, so call this before the device is used.
    """
    indices = range(len(source)) if indices is None else indices
    n = len(indices)
    work = partial(_chunk, source, context_length)
    parts = [indices[i : i + chunk] for i in range(0, n, chunk)]
    images = np.empty((n, source.channels, *source.size), np.uint8)
    numbers: dict[bytes, int] = {}
    choices: list[list[int]] = []
    pool = ProcessPoolExecutor(workers, mp_context=get_context("fork")) if workers else nullcontext()
    with pool as executor:
        done: Iterator[Chunk] = executor.map(work, parts) if isinstance(executor, Executor) else map(work, parts)
        for i, (pixels, captions) in enumerate(track(done, f"reading {source.name}", len(parts))):
            images[i * chunk : (i + 1) * chunk] = pixels
            choices += [[numbers.setdefault(c, len(numbers)) for c in alternatives] for alternatives in captions]
    counts = torch.tensor([len(row) for row in choices])
    width = int(counts.max())
    table = np.frombuffer(b"".join(numbers), np.uint16).reshape(len(numbers), context_length)
    return CaptionedSet(
        torch.from_numpy(images),
        torch.tensor([row + [0] * (width - len(row)) for row in choices]),
        counts,
        torch.from_numpy(table.astype(np.int32)),
    )


@dataclass
class Augment:
    """Random views of a batch, on its device. Only what keeps the captions true may be switched on.

    translate: largest shift, as a share of the side. scale: largest log-zoom. rotate: largest angle in radians. Both
    blur, so half of the images are spared them. flip: mirror half of them (never where captions say left or right).
    colour: spread of brightness, contrast and saturation. cutout: side of the square that is greyed in half of the
    images, as a share of the side. halve: share of images that are reduced to half their size and enlarged again, so
    that samples of half the size are scored fairly.
    """

    translate: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    flip: bool = False
    colour: float = 0.0
    cutout: float = 0.0
    halve: float = 0.0

    def __call__(self, images: Tensor, gen: torch.Generator) -> Tensor:
        """uint8 [n, 3, S, S] to float32 [n, 3, S, S] in 0..1."""
        n, device = len(images), images.device

        def spread(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=gen, device=device) - 1

        def chance(p: float) -> Tensor:
            return torch.rand(n, 1, 1, 1, generator=gen, device=device) < p

        x = images.float() / 255
        if self.halve:
            half = F.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True)
            back = F.interpolate(half, x.shape[-2:], mode="bicubic", antialias=True)
            x = torch.where(chance(self.halve), back.clamp(0, 1), x)
        side = x.shape[-1]
        zoom, angle = self.scale * spread(n), self.rotate * spread(n)
        if self.scale or self.rotate:
            bent = chance(0.5).view(n)
            zoom, angle = zoom * bent, angle * bent
        zoom = zoom.exp()
        shift = (self.translate * side * spread(n, 2)).round() * 2 / side  # whole pixels: a shift alone does not blur
        mirror = torch.where(spread(n) < 0, -1.0, 1.0) if self.flip else torch.ones(n, device=device)
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        affine = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], 1).view(n, 2, 3)
        grid = F.affine_grid(affine, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        gain, contrast, saturation = (self.colour * spread(3, n, 1, 1, 1)).exp()
        x = x * gain
        x = x.mean((1, 2, 3), keepdim=True).lerp(x, contrast)
        x = x.mean(1, keepdim=True).lerp(x, saturation).clamp(0, 1)
        if self.cutout:
            lines = torch.linspace(-1, 1, x.shape[-1], device=device)
            centre = spread(2, n, 1, 1, 1)
            inside = ((lines.view(1, 1, -1, 1) - centre[0]).abs() < self.cutout) & (
                (lines.view(1, 1, 1, -1) - centre[1]).abs() < self.cutout
            )
            x = torch.where(inside & chance(0.5), 0.5, x)
        return x
