"""One split of a captioned image set, whatever it is read from, and the statistics of its pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.runs.files import RunError

MEASURED = 10_000  # images that `measure` looks at


class Source(Protocol):
    """One split ("train" or "val") of a captioned image set, in random access."""

    @property
    def name(self) -> str:
        """The data set's name in folders and rows of results."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the images, pixels."""

    @property
    def channels(self) -> int:
        """C of the images."""

    @property
    def fingerprint(self) -> str:
        """Changes with the images of the split, not with the place they are kept in."""

    def __len__(self) -> int:
        """Number of images in the split."""

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """The images as uint8 [n, C, H, W]."""

    def captions(self, index: int) -> tuple[str, ...]:
        """The alternatives that training draws from, uniformly."""

    def prompt(self, index: int) -> str:
        """The caption under which evaluation samples (val split)."""


@runtime_checkable
class Encoded(Protocol):
    """What the train split has in place of images where they were encoded before (flowzoo/data/encoded.py)."""

    @property
    def autoencoder(self) -> Path:
        """The file of flowzoo.autoencoders.kept that says by which autoencoder, with which statistics."""

    def latents(self, indices: Sequence[int]) -> Tensor:
        """As `Latents.centred` of the images, [n, c, h, w], float16 or float32."""

    def caption_rows(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Numbers of the captions of all images in a row, how many each image has, and how many different ones are."""

    def caption_numbers(self, indices: Sequence[int], draws: Sequence[int]) -> list[int]:
        """Of each image the number of its caption `draw mod alternatives`."""

    def text(self, encoders: TextEncoders, rows: Sequence[int]) -> Text:
        """Of captions by number, float16. Raises Refused where it was encoded by others than `encoders`."""

    def names_of(self, encoders: TextEncoders) -> list[str]:
        """What it calls the encoders of a run. Raises Refused as `text`."""


def shuffled(source: Source, count: int) -> list[int]:
    """`count` indices in one fixed random order, as folders are sorted by class; repeats past the end."""
    order = np.random.RandomState(0).permutation(len(source))
    return np.resize(order, count).tolist()


def check_split(split: str) -> str:
    if split not in ("train", "val"):
        raise ValueError(f"split={split!r} is not a split; allowed: train, val")
    return split


def check_val_fraction(share: float) -> None:
    """Raises ValueError for a share of the images that cannot be held out."""
    if not 0 < share < 1:
        raise ValueError(f"val_fraction={share} is out of range; allowed: between 0 and 1")


def in_split(draw: Any, split: str, val_fraction: float) -> Any:
    """Whether an image is in a split of which val is a share: of `draw`, an integer of `word` or an array of them."""
    return (draw < val_fraction * 2**63) == (split == "val")


def measure(source: Source) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in 0..1 pixel units, over at most 10,000 evenly spaced images.

    Raises RunError where a channel has one value everywhere, which cannot be normalised.
    """
    n = min(len(source), MEASURED)
    indices = np.arange(n) * len(source) // n
    total = np.zeros(source.channels)
    squares = np.zeros(source.channels)
    low, high = np.full(source.channels, 255), np.zeros(source.channels)
    for chunk in np.array_split(indices, -(-n // 500)):
        pixels = source.images(chunk.tolist())
        low = np.minimum(low, pixels.min((0, 2, 3)))
        high = np.maximum(high, pixels.max((0, 2, 3)))
        x = pixels.astype(np.float64) / 255
        total += x.mean((2, 3)).sum(0)
        squares += (x * x).mean((2, 3)).sum(0)
    if flat := [k for k in range(source.channels) if low[k] == high[k]]:
        raise RunError(
            f"data {source.name}: channel {flat[0]} is {low[flat[0]]:g} in every pixel of the {n} images looked at, so "
            "there is nothing to learn; allowed: images that differ, or data.mean and data.std by hand"
        )
    mean = total / n
    return mean.tolist(), np.sqrt(squares / n - mean * mean).tolist()
