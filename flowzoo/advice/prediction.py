"""The law of ln sigma that latents predict, how sure it is, and which of the paper's formulations are near to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from flowzoo.autoencoders.spectrum import eigenvalues, energies
from flowzoo.formulation.mixture import LogisticMixture
from flowzoo.formulation.named import formulation
from flowzoo.formulation.names import TABLE
from flowzoo.randomness import word

REPLICATES = 200
OUTSIDE = 0.025  # on each side of an interval of 95 %
MATTERS = 0.05  # in ln sigma: a tenth of the step between the paper's m
QUANTILES = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000  # u, at which laws are compared


@dataclass(frozen=True)
class Estimate:
    """A number with the interval in which 95 % of the replicates lie."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, replicates: Sequence[float] | np.ndarray) -> "Estimate":
        low, high = np.quantile(np.asarray(replicates), [OUTSIDE, 1 - OUTSIDE])
        return cls(float(value), float(low), float(high))


@dataclass(frozen=True)
class Near:
    """A named formulation: how far its law is, and the share of replicates in which it is the nearest of all."""

    name: str
    distance: Estimate
    nearest: float


@dataclass(frozen=True)
class Prediction:
    """`eigenvalues` fall; `half` is the law from every second image; `replicates` are laws of resampled images."""

    images: int
    dimensions: int
    eigenvalues: Tensor
    law: LogisticMixture
    half: LogisticMixture
    replicates: tuple[LogisticMixture, ...]

    @property
    def mean(self) -> Estimate:
        """Of ln sigma."""
        return self._estimate(lambda law: law.mean)

    @property
    def deviation(self) -> Estimate:
        """Of ln sigma."""
        return self._estimate(lambda law: law.deviation)

    def _estimate(self, number: Callable[[LogisticMixture], float]) -> Estimate:
        return Estimate.of(number(self.law), [number(law) for law in self.replicates])

    @property
    def is_settled(self) -> bool:
        """Whether half of the images would have said the same, but for chance or for less than matters."""
        pairs = ((self.mean, self.half.mean), (self.deviation, self.half.deviation))
        return all(abs(half - whole.value) <= max(whole.high - whole.low, MATTERS) for whole, half in pairs)

    def share(self, count: int) -> float:
        """Of the variance, in the largest `count` eigenvalues."""
        return float(self.eigenvalues[:count].sum() / self.eigenvalues.sum())

    def nearest(self) -> list[Near]:
        """All of the paper's formulations, the nearest first."""
        laws = [self.law.quantile(QUANTILES), *(law.quantile(QUANTILES) for law in self.replicates)]
        apart = np.array([[distance(law, levels(name)) for name in TABLE] for law in laws])
        first = np.bincount(apart[1:].argmin(1), minlength=len(TABLE)) / len(self.replicates)
        found = [Near(name, Estimate.of(apart[0, i], apart[1:, i]), float(first[i])) for i, name in enumerate(TABLE)]
        return sorted(found, key=lambda near: near.distance.value)


def predict(x: Tensor, replicates: int = REPLICATES) -> Prediction:
    """Of latents [n, D], n > 1.

    A replicate draws n of the images with replacement. Its eigenvalues are taken along the eigenvectors of all images,
    which is right to first order in what the draw changes.
    """
    values, squares = energies(x)
    n = len(x)
    draws = np.random.default_rng(word(0, 0, "bootstrap")).multinomial(n, np.full(n, 1 / n), size=replicates)
    resampled = torch.from_numpy(draws).float() @ squares / (n - 1)
    return Prediction(
        images=n,
        dimensions=x.shape[1],
        eigenvalues=values,
        law=LogisticMixture.of(values),
        half=LogisticMixture.of(eigenvalues(x[::2])) if n > 3 else LogisticMixture.of(values),
        replicates=tuple(LogisticMixture.of(row) for row in resampled),
    )


def distance(one: Tensor, other: Tensor) -> float:
    """Wasserstein's of order 1 between two laws of ln sigma, from their values at `QUANTILES`: how far draws move."""
    return float((one - other).abs().mean())


def density(name: str, log_sigma: np.ndarray) -> np.ndarray:
    """Of a named formulation's law of ln sigma."""
    one, t = formulation(name), torch.sigmoid(torch.linspace(-14, 14, 1001, dtype=torch.float64))
    c = one.at_t(t)
    # ln sigma = ln b - ln a
    of_log_sigma = one.density(t) / (c.db / c.b - c.da / c.a)
    return np.interp(log_sigma, (c.b / c.a).log().numpy(), of_log_sigma.numpy(), left=0, right=0)


@cache
def levels(name: str) -> Tensor:
    """ln sigma of a named formulation's draws at `QUANTILES`."""
    record = formulation(name).coefficients(QUANTILES)
    return (record.b / record.a).log()
