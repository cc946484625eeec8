"""Laws of ln sigma that are mixtures of logistic bumps, as a spectrum of the data gives them.

Gaussian data with covariance eigenvalues w_i have the denoising error sum_i w_i sigma^2 / (w_i + sigma^2) in x0. Per
unit of ln sigma it changes by sum_i 2 w_i s (1 - s), s = sigmoid(2 ln sigma - ln w_i): bumps of scale 1/2, centred at
(ln w_i)/2, of mass w_i.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

SCALE = 0.5  # of a bump, in ln sigma
_BIN = 1 / 16  # in ln w: eigenvalues so close are one bump, which moves no density by more than 1e-4
_TAIL, _STEP = 10.0, 1 / 128  # of the nodes between which the quantile is interpolated, in ln sigma


@dataclass(frozen=True)
class LogisticMixture:
    """Bumps of scale 1/2 with `centres`, in ln sigma, and `masses`, which sum to 1."""

    centres: tuple[float, ...]
    masses: tuple[float, ...]

    @classmethod
    def of(cls, eigenvalues: Tensor | Sequence[float]) -> "LogisticMixture":
        """A bump for each eigenvalue above 0, or for several that are within 6 % of each other.

        ValueError where none is above 0, or one is not finite.
        """
        w = torch.as_tensor(eigenvalues, dtype=torch.float64).flatten().cpu()
        if not w.isfinite().all():
            raise ValueError("eigenvalues: one of them is not finite; allowed: finite numbers")
        w = w[w > 1e-12 * w.max()] if len(w) and w.max() > 0 else w[:0]
        if not len(w):
            raise ValueError("eigenvalues: none of them is above 0; allowed: data that vary")
        bins = torch.floor(w.log() / _BIN).long()
        bins, place = torch.unique(bins, return_inverse=True)
        mass = torch.zeros(len(bins), dtype=torch.float64).index_add(0, place, w)
        centre = torch.zeros_like(mass).index_add(0, place, w * w.log() / 2) / mass
        return cls(tuple(centre.tolist()), tuple((mass / mass.sum()).tolist()))

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "LogisticMixture":
        """What `told` wrote."""
        return cls(tuple(told["centres"]), tuple(told["masses"]))

    @property
    def told(self) -> dict[str, list[float]]:
        """As plain numbers, for a JSON file."""
        return {"centres": list(self.centres), "masses": list(self.masses)}

    @property
    def mean(self) -> float:
        """Of ln sigma."""
        return sum(m * c for m, c in zip(self.masses, self.centres, strict=True))

    @property
    def deviation(self) -> float:
        """Of ln sigma: a single bump has pi/sqrt(12) = 0.907."""
        mean = self.mean
        spread = sum(m * (c - mean) ** 2 for m, c in zip(self.masses, self.centres, strict=True))
        return math.sqrt(spread + (math.pi * SCALE) ** 2 / 3)

    def density(self, log_sigma: Tensor) -> Tensor:
        """Of ln sigma, float64 of any shape."""
        rise, fall = self._sides(log_sigma)
        return (rise * fall) @ self._masses(log_sigma) / SCALE

    def cdf(self, log_sigma: Tensor) -> Tensor:
        """The share of the law below ln sigma, float64 of any shape."""
        return self._sides(log_sigma)[0] @ self._masses(log_sigma)

    def quantile(self, u: Tensor) -> Tensor:
        """ln sigma for float64 u of any shape, strictly inside (0, 1): the inverse of `cdf`, to 1e-10.

        As a function of logit u it is smooth, and linear in both tails. Between nodes with the exact slopes it is
        interpolated by cubics.
        """
        x, y, slope = (part.to(u.device) for part in _nodes(self))
        logit = torch.logit(u)
        i = torch.searchsorted(x, logit.detach().contiguous()).clamp(1, len(x) - 1)
        width = x[i] - x[i - 1]
        h = (logit - x[i - 1]) / width
        # Hermite's cubic, as the end points' line and what the slopes add to it
        inside = torch.lerp(y[i - 1], y[i], h) + h * (1 - h) * (
            (1 - h) * (slope[i - 1] * width - (y[i] - y[i - 1])) - h * (slope[i] * width - (y[i] - y[i - 1]))
        )
        below, above = y[0] + slope[0] * (logit - x[0]), y[-1] + slope[-1] * (logit - x[-1])
        return torch.where(logit < x[0], below, torch.where(logit > x[-1], above, inside))

    def _sides(self, log_sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The shares of each bump [..., K] below and above ln sigma."""
        z = (log_sigma[..., None] - torch.tensor(self.centres).to(log_sigma)) / SCALE
        return torch.sigmoid(z), torch.sigmoid(-z)

    def _masses(self, like: Tensor) -> Tensor:
        return torch.tensor(self.masses, dtype=torch.float64).to(like)


@lru_cache(maxsize=64)
def _nodes(mixture: LogisticMixture) -> tuple[Tensor, Tensor, Tensor]:
    """logit F, ln sigma, and the slope of the second in the first; beyond both ends it is the tails' 1/2 to 1e-8."""
    low, high = min(mixture.centres) - _TAIL, max(mixture.centres) + _TAIL
    y = torch.linspace(low, high, math.ceil((high - low) / _STEP) + 1, dtype=torch.float64)
    rise, fall = (side @ mixture._masses(y) for side in mixture._sides(y))
    return rise.log() - fall.log(), y, rise * fall / mixture.density(y)
