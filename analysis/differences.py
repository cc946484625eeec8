"""Paired differences of scores over seeds, with intervals.

A pair is two scores of one line (a variant), seed and setting. A run's difference is the mean over settings, as one
training made all its scores, and seeds are the draws: the interval of a line is Student's t over its seeds. Below
`ENOUGH` seeds a line alone says next to nothing about its spread (2 seeds: t is 12.7), so lines share one spread,
relative to their level in a score that has its best value at 0: the mean square of the seeds' common part and that of
the rest, together with the degrees of freedom of Satterthwaite (1946).
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.objectives import Objective
from analysis.resampling import ENOUGH

Floats = NDArray[np.float64]
LEVEL = 0.95


class Pair(NamedTuple):
    """Two scores by metric, of one line, seed and setting."""

    line: str
    seed: str
    setting: Hashable
    a: Mapping[str, float]
    b: Mapping[str, float]


@dataclass(frozen=True)
class Difference:
    """b - a in one metric, means over settings and seeds, with a 95 % interval; None where one seed tells of none."""

    metric: Objective
    line: str
    n_seeds: int
    n_settings: int
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    is_relative: bool  # whether a share of `a` means something

    @property
    def verdict(self) -> str:
        """better or worse, where the interval leaves out 0 and the metric's direction is known."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high or not self.metric.direction:
            return ""
        return "better" if self.metric.sign * self.difference < 0 else "worse"


def differences(pairs: Sequence[Pair], metrics: Sequence[Objective], of_all: str) -> tuple[list[Difference], list[str]]:
    """The differences of each line, and of all of them where they are several; and the lines that are left out.

    Lines count that share their seeds and settings; these are chosen so that most pairs count.
    """
    out: list[Difference] = []
    left: dict[str, None] = {}
    for metric in metrics:
        cells: dict[str, dict[tuple[str, Hashable], tuple[float, float]]] = {}
        for pair in pairs:
            both = pair.a.get(metric.name, math.nan), pair.b.get(metric.name, math.nan)
            if all(map(math.isfinite, both)):
                cells.setdefault(pair.line, {})[pair.seed, pair.setting] = both
        if not cells:
            continue
        sets = {frozenset(own) for own in cells.values()}
        grid = max(sets, key=lambda one: (len(one) * sum(one <= own.keys() for own in cells.values()), len(one)))
        lines = sorted(line for line, own in cells.items() if grid <= own.keys())
        left |= dict.fromkeys(line for line in {pair.line: None for pair in pairs} if line not in lines)
        seeds = sorted({seed for seed, _ in grid})
        values = np.array([
            [np.mean([both for (own, _), both in cells[line].items() if own == seed and (own, _) in grid], axis=0)
             for seed in seeds]
            for line in lines
        ])  # fmt: skip
        out += _of_metric(metric, lines, values, len({setting for _, setting in grid}), of_all)
    return out, list(left)


def _of_metric(metric: Objective, lines: Sequence[str], values: Floats, settings: int, of_all: str) -> list[Difference]:
    """`values` is [L, n, 2], of each line and seed a and b."""
    n = values.shape[1]
    is_relative = metric.direction == "min" and bool((values >= 0).all())
    change = values[..., 1] - values[..., 0]
    level = values.mean((1, 2)) if is_relative else np.ones(len(lines))
    half = half_widths(change, level)
    mean = values.mean(1)

    def of_line(line: str, a: float, b: float, half: float) -> Difference:
        low, high = (None, None) if math.isnan(half) else (b - a - half, b - a + half)
        return Difference(metric, line, n, settings, a, b, b - a, low, high, is_relative)

    out = [of_line(line, *map(float, (*mean[i], half[i]))) for i, line in enumerate(lines)]
    if len(lines) > 1:
        spread = change.mean(1).std(ddof=1) / len(lines) ** 0.5
        out.append(of_line(of_all, *map(float, (*mean.mean(0), _t(len(lines) - 1) * spread))))
    return out


def half_widths(change: Floats, level: Floats) -> Floats:
    """Of the intervals of the means over seeds of `change` [L, n], whose noise is in proportion to `level` [L].

    NaN with one seed.
    """
    lines, n = change.shape
    if n < 2:
        return np.full(lines, math.nan)
    if lines == 1 or n >= ENOUGH:
        return _t(n - 1) * change.std(1, ddof=1) / n**0.5
    scale = np.where(level > 0, level, 1.0)
    rest = (change - change.mean(1, keepdims=True)) / scale[:, None]
    common = rest.mean(0)  # what a seed did to all
    parts = lines * (common**2).sum() / (n - 1), ((rest - common) ** 2).sum() / ((n - 1) * (lines - 1))
    shares = parts[0] / lines, parts[1] * (lines - 1) / lines
    variance = sum(shares)
    if variance == 0:
        return np.zeros(lines)
    freedom = variance**2 / (shares[0] ** 2 / (n - 1) + shares[1] ** 2 / ((n - 1) * (lines - 1)))
    return _t(freedom) * scale * (variance / n) ** 0.5


def _t(freedom: float) -> float:
    """The 0.975 quantile of Student's t."""
    from scipy.special import stdtrit  # a tenth of a second

    return float(stdtrit(freedom, (1 + LEVEL) / 2))
