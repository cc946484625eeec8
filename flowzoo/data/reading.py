"""Many images at once: in threads, and another readable one in place of each that cannot be read."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
import torch

from flowzoo.data.decoding import UNREADABLE, pixel_size
from flowzoo.data.passed import shown
from flowzoo.runs.files import RunError

log = logging.getLogger(__name__)

CORRUPT_SHARE = 0.01  # of the split, but one image always; more stops the run
_THREADED = 256  # images asked for at once from which threads pay
_MEASURED = 200  # images whose size in pixels is looked at


class CorruptImages(RunError):
    """Too many images cannot be read."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[range], None], n: int) -> None:
    """`work` on all numbers below n; where they are many, each thread takes a share of them."""
    if n < _THREADED:
        work(range(n))
        return
    threads = cores()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [range(k, n, threads) for k in range(threads)]))


def sizes_told(open_one: Callable[[int], BinaryIO], n: int, asked: tuple[int, int]) -> str:
    """H x W in pixels of at most 200 evenly spaced ones of n images, and how many are smaller than is asked for."""
    seen = min(n, _MEASURED)
    sizes, broken = [], 0
    for i in (i * n // seen for i in range(seen)):
        try:
            with open_one(i) as stream:
                sizes.append(pixel_size(stream))
        except UNREADABLE:
            broken += 1
    of = "" if seen == n else f" (of {seen} looked at)"
    if not sizes:
        return f"none can be read{of}"
    sizes.sort(key=math.prod)
    least, most = ("{} x {}".format(*sizes[k]) for k in (0, -1))
    told = least if least == most else f"{least} to {most}"
    height, width = asked
    smaller = sum(h < height or w < width for h, w in sizes)
    edges = height if height == width else f"{height} x {width}"
    told += f"; {smaller} smaller than {edges}, which are enlarged" if smaller else ""
    return told + (f"; {broken} unreadable" if broken else "") + of


class Standins:
    """Which images of a split cannot be read, and which stand for them: the next readable one of the same group.

    Args:
        told: what messages call the split.
        name: of an image by its number.
        first, count: int [n]; image i is of the group of images first[i] to first[i] + count[i].
        group: what messages call the group of an image.
    """

    def __init__(
        self,
        told: str,
        name: Callable[[int], str],
        first: np.ndarray,
        count: np.ndarray,
        group: Callable[[int], str],
    ) -> None:
        self._told, self._name, self._group = told, name, group
        self._first, self._count = first, count
        # Shared memory, so that what one loader process finds unreadable counts in all.
        self._corrupt = torch.zeros(len(first), dtype=torch.bool).share_memory_()

    @property
    def corrupt(self) -> int:
        """Images found unreadable so far."""
        return int(self._corrupt.sum())

    def of(self, index: int) -> int:
        """The image that stands for this one as far as is known; itself where none does."""
        return next((i for i in self._in_order(index) if not self._corrupt[i]), index)

    def read(self, index: int, load: Callable[[int], np.ndarray]) -> np.ndarray:
        """`load(i)` of the image itself or of the first in its place that can be read. Raises CorruptImages."""
        for i in self._in_order(index):
            if not self._corrupt[i]:
                try:
                    return load(i)
                except UNREADABLE as error:
                    self._mark(i, error)
        raise CorruptImages(f"{self._told}: no image of {self._group(index)} can be read; repair or remove them")

    def images(self, indices: Sequence[int], size: tuple[int, int], load: Callable[[int], np.ndarray]) -> np.ndarray:
        """uint8 [n, 3, H, W] of images by number, each as `read` has it. Raises CorruptImages."""
        out = np.empty((len(indices), 3, *size), np.uint8)

        def fill(rows: range) -> None:
            for row in rows:
                out[row] = self.read(int(indices[row]), load)

        in_threads(fill, len(indices))
        return out

    def _in_order(self, index: int) -> Sequence[int]:
        first, count = int(self._first[index]), int(self._count[index])
        return range(index, first + count) if index == first else [*range(index, first + count), *range(first, index)]

    def _mark(self, i: int, error: Exception) -> None:
        self._corrupt[i] = True
        found, n = self.corrupt, len(self._corrupt)
        log.warning("%s: %s cannot be read (%s) and is left out; %d so far", self._told, self._name(i), error, found)
        if found > max(1, CORRUPT_SHARE * n):
            names = [self._name(k) for k in self._corrupt.nonzero().flatten().tolist()]
            raise CorruptImages(
                f"{found} of the {n} images of {self._told} cannot be read, more than "
                f"{CORRUPT_SHARE:.0%}: {shown(names)} (the last: {error}); repair or remove them"
            )
