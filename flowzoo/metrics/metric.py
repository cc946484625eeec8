"""What a score of samples is: columns of results, and statistics that are gathered batch by batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from flowzoo.autoencoders.latents import Latents
from flowzoo.data.source import Source
from flowzoo.metrics.extractor import FeatureExtractor

CPU = torch.device("cpu")
PIECE = 500  # images at once


@dataclass(frozen=True)
class Made:
    """A batch of samples of M variants, all made for the same n prompts."""

    images: Tensor  # uint8 [M, n, C, H, W]
    features: Tensor  # [M, n, dim] of the extractor; NaN where a sample is not finite
    prompts: Sequence[str]  # n
    prompt_features: Tensor  # [n, dim] of the extractor


class Statistics(Protocol):
    """What one setting comes to."""

    def update(self, made: Made) -> None:
        """Take in the next batch; the variants are the same in all."""

    def values(self) -> list[dict[str, float | None]]:
        """Of each of the M variants: a number for every column, or None where it cannot be said."""
        ...


class Metric(Protocol):
    """A score, or several that are computed together."""

    @property
    def columns(self) -> Mapping[str, Literal["min", "max"]]:
        """Columns of results.csv, and which direction is better."""

    @property
    def prompts(self) -> Sequence[str] | None:
        """Its own prompts; None for those of the protocol."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that could change a score; part of the protocol's hash."""

    @property
    def quality(self) -> Mapping[str, Any]:
        """What is known of how good the judge is, told beside its scores (`shown_quality`); may be empty."""

    def statistics(self) -> Statistics:
        """New ones, for one setting."""


def evenly_spaced(source: Source, n: int, latents: Latents | None = None) -> Iterator[Tensor]:
    """`n` images of a source in pieces, through `latents` if given: evenly spaced, as folders are sorted by class."""
    indices = [i * len(source) // n for i in range(n)]
    for first in range(0, n, PIECE):
        images = torch.from_numpy(source.images(indices[first : first + PIECE]))
        yield latents.decode(latents.encode(images.to(latents.device))) if latents else images


@dataclass(frozen=True)
class HeldOut:
    """Real images that samples may be compared with."""

    source: Source
    n: int  # of its images, evenly spaced
    extractor: FeatureExtractor
    identity: Mapping[str, Any]  # all that decides the extractor's features
    samples: int  # that will be compared with them
    cache: Path | None  # a folder where what is computed of these images may be kept
    latents: Latents | None  # what samples are decoded by; None where it gives images back as they were
    device: torch.device = CPU  # where samples are

    def images(self, decoded: bool = False) -> Iterator[Tensor]:
        """Those images in pieces, uint8 [k, C, H, W]; `decoded` through the latents, where there are some."""
        return evenly_spaced(self.source, self.n, self.latents if decoded else None)

    def features(self, decoded: bool = False) -> Tensor:
        """What the extractor says of each, float32 [n, dim], where samples are."""
        return torch.cat([self.extractor.images(piece.to(self.device)) for piece in self.images(decoded)])


@runtime_checkable
class Compared(Protocol):
    """What a metric has besides that compares with held-out images."""

    def begin(self, held_out: HeldOut) -> str:
        """Called once before the first setting. What the user should know beforehand; empty where there is nothing."""
        ...


def shown_quality(quality: Mapping[str, Any]) -> str:
    """In words: `what` was measured, its `value`, a share, and on which `data`; or all that a quality has."""
    what, value, data = (quality.get(key) for key in ("what", "value", "data"))
    if isinstance(value, int | float) and what and data:
        return f"{what}: {value:.1%} on {data}"
    return ", ".join(f"{key} {x}" for key, x in quality.items())
