"""How far two orders of the same variants agree: Spearman's and Kendall's correlation, with bootstrap intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REPLICATES = 2000
OUTSIDE = 0.025  # left out on each side: intervals of 95 %
FEWEST = 3  # variants

Floats = NDArray[np.float64]


class Correlation(NamedTuple):
    """Of n variants, with the interval that drawing the variants anew leaves. It says nothing of the noise of seeds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


class Agreement(NamedTuple):
    n: int
    spearman: Correlation
    kendall: Correlation


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement | None:
    """Of two ranks of each variant; the same for the same ranks. None below three variants, or where all rank alike."""
    x, y = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    n = len(x)
    if n < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    drawn = np.random.default_rng(0).integers(n, size=(REPLICATES, n))
    found = []
    for measure in (spearman, kendall):
        replicates = measure(x[drawn], y[drawn])
        low, high = np.nanquantile(replicates, [OUTSIDE, 1 - OUTSIDE])
        found.append(Correlation(float(measure(x[None], y[None])[0]), float(low), float(high)))
    return Agreement(n, *found)


def spearman(x: Floats, y: Floats) -> Floats:
    """Of R pairs of orders [R, n]: the correlation of their places, ties at the mean; NaN where one is all ties."""
    places = [(_signs(side).sum(-1) / 2) for side in (x, y)]  # but for a constant
    centred = [place - place.mean(-1, keepdims=True) for place in places]
    return _ratio((centred[0] * centred[1]).sum(-1), *((side**2).sum(-1) for side in centred))


def kendall(x: Floats, y: Floats) -> Floats:
    """Of R pairs of orders [R, n]: tau-b, which corrects for ties; NaN where one is all ties."""
    first, second = _signs(x), _signs(y)
    return _ratio((first * second).sum((-1, -2)), (first**2).sum((-1, -2)), (second**2).sum((-1, -2)))


def _signs(x: Floats) -> Floats:
    """[R, n, n]: whether i is after j."""
    return np.sign(x[:, :, None] - x[:, None, :])


def _ratio(both: Floats, first: Floats, second: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(first * second > 0, both / np.sqrt(first * second), np.nan)
