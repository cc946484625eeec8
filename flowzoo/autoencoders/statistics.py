"""Mean and deviation of each channel of latents, how sure they are, and whether held-out images agree with them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowzoo.autoencoders.autoencoder import Autoencoder
from flowzoo.autoencoders.pieces import Pieces
from flowzoo.data.source import MEASURED, Source
from flowzoo.runs.files import Refused

HELD_OUT = 2_000  # images of the val split that statistics are checked against
APART = 0.1  # of the deviation: a smaller disagreement is never refused
SURE = 4  # standard errors: nor is one that may be chance
_CHUNK = 500  # images read at once


@dataclass(frozen=True)
class ChannelStatistics:
    """One number a channel, in the units of the autoencoder.

    Errors are standard errors over images, as the pixels of one image are no independent draws; 0 where the statistics
    were not measured but given.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_error: tuple[float, ...]
    std_error: tuple[float, ...]

    @classmethod
    def given(cls, mean: Sequence[float], std: Sequence[float]) -> "ChannelStatistics":
        """Statistics that are known."""
        return cls(tuple(mean), tuple(std), (0.0,) * len(mean), (0.0,) * len(mean))


def some_indices(source: Source, count: int) -> Iterator[list[int]]:
    """Of at most `count` evenly spaced images, a chunk at a time."""
    n = min(len(source), count)
    for chunk in np.array_split(np.arange(n) * len(source) // n, -(-n // _CHUNK)):
        yield chunk.tolist()


def some_images(source: Source, count: int) -> Iterator[Tensor]:
    """At most `count` evenly spaced images, uint8 [n, C, H, W] a chunk."""
    for chunk in some_indices(source, count):
        yield torch.from_numpy(source.images(chunk))


def measure(
    autoencoder: Autoencoder, source: Source, count: int = MEASURED, device: torch.device | str = "cpu"
) -> ChannelStatistics:
    """Of the latents of at most `count` evenly spaced images. The autoencoder is moved to `device`.

    Raises Refused where a channel has one value everywhere, which cannot be normalised.
    """
    autoencoder.to(device)
    found = statistics_of(autoencoder, (images.to(device) for images in some_images(source, count)))
    if flat := [i for i, std in enumerate(found.std) if not std > 0]:
        raise Refused(
            f"data {source.name}: channel {flat[0]} of the latents is {found.mean[flat[0]]:g} everywhere; allowed: "
            "images that differ, or fewer channels"
        )
    return found


@torch.no_grad()
def statistics_of(autoencoder: Autoencoder, chunks: Iterable[Tensor]) -> ChannelStatistics:
    """Of the latents of images, uint8 [n, C, H, W] a chunk."""
    means, squares, pieces = [], [], Pieces()
    for images in chunks:
        x = pieces(autoencoder.encode, images, images.shape[-2] * images.shape[-1]).double().flatten(2)  # [n, c, h w]
        means.append(x.mean(2).cpu())
        squares.append(x.square().mean(2).cpu())
    each, square = torch.cat(means), torch.cat(squares)  # [images, c]
    mean = each.mean(0)
    # squared distance of each image's latents to the mean of all: the variance is their mean
    distance = square - 2 * mean * each + mean.square()
    std = distance.mean(0).clamp(min=0).sqrt()
    root = math.sqrt(len(each))
    # one image says nothing of how images differ
    mean_error = each.std(0) / root if len(each) > 1 else torch.full_like(mean, math.inf)
    std_error = distance.std(0) / root / (2 * std) if len(each) > 1 else torch.full_like(mean, math.inf)
    return ChannelStatistics(*(tuple(x.tolist()) for x in (mean, std, mean_error, std_error)))


def check(statistics: ChannelStatistics, held_out: ChannelStatistics) -> None:
    """Raises Refused where a channel's mean or deviation is not what held-out images have.

    That is where they are more than a tenth of the deviation apart, and more than four standard errors of their
    difference, so that a set of 200 images is not refused by chance.
    """
    for what in ("mean", "std"):
        pairs = zip(getattr(statistics, what), getattr(held_out, what), strict=True)
        errors = zip(getattr(statistics, f"{what}_error"), getattr(held_out, f"{what}_error"), strict=True)
        for i, ((known, seen), error) in enumerate(zip(pairs, errors, strict=True)):
            apart, deviation = abs(seen - known), statistics.std[i]
            if apart > APART * deviation and apart > SURE * math.hypot(*error):
                name = {"mean": "mean", "std": "deviation"}[what]
                raise Refused(
                    f"channel {i} of the latents has {name} {known:.4g}, and {seen:.4g} on held-out images: "
                    f"{apart / deviation:.0%} of the deviation apart; allowed: {APART:.0%}, or statistics and images "
                    "that belong together"
                )
