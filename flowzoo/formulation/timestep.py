"""Timestep samplers: increasing quantile functions u -> t with their densities (paper sec. 3.1), or laws of ln sigma.

Parameters are numbers, or tensors with a leading variant axis: [V, 1] against u of [B] or [V, B]. All variants share u.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from flowzoo.formulation.mixture import LogisticMixture
from flowzoo.formulation.part import MEASURABLE, MODE_S, MODE_S_MAX, POSITIVE, REAL, Part, Range
from flowzoo.formulation.schedule import RF, Schedule


class TimestepSampler(Part, ABC):
    """What a timestep sampler has to say; derive from it to add one.

    A law that equals a simpler one for some parameters says so in `equals`, a static method of its parameters: it
    returns the word and the parameters of the simpler one, as which it is named and hashed, else None.
    """

    place = "sampler"

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """t for float64 u strictly inside (0, 1), increasing in u."""

    @abstractmethod
    def density(self, t: Tensor) -> Tensor:
        """pi(t) = du/dt for float64 t strictly inside (0, 1)."""

    def quantile_on(self, schedule: Schedule, u: Tensor) -> Tensor:
        """As `quantile`, on a schedule: the same on all of them, unless the law is one of sigma."""
        return self.quantile(u)

    def density_on(self, schedule: Schedule, t: Tensor) -> Tensor:
        """As `density`, on a schedule."""
        return self.density(t)


def shifted(t: Tensor, shift: float | Tensor) -> Tensor:
    """t moved towards noise by a shift above 1; on rf the log-SNR falls by 2 ln shift. Exactly t for a shift of 1."""
    # paper eq. 23
    return shift * t / (1 + (shift - 1) * t)


class Shiftable(TimestepSampler):
    """A law whose draws may be moved by `shifted`; `shift` > 0, else ValueError. Provide `law` and `law_density`."""

    ranges: ClassVar[Mapping[str, Range]] = {"shift": POSITIVE}

    def __init__(self, shift: float | Tensor = 1.0) -> None:
        self.check(shift=shift)
        self.shift = shift

    @abstractmethod
    def law(self, u: Tensor) -> Tensor:
        """As `quantile`, before the shift."""

    @abstractmethod
    def law_density(self, t: Tensor) -> Tensor:
        """As `density`, before the shift."""

    def quantile(self, u: Tensor) -> Tensor:
        return shifted(self.law(u), self.shift)

    def density(self, t: Tensor) -> Tensor:
        # the slope of the inverse, which is the shift by 1/shift
        slope = self.shift / (self.shift - (self.shift - 1) * t) ** 2
        return self.law_density(shifted(t, 1 / self.shift)) * slope


class Uniform(Shiftable):
    word = "uniform"

    def law(self, u: Tensor) -> Tensor:
        return u

    def law_density(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


class LogitNormal(TimestepSampler):
    """logit t ~ N(m, s^2), s > 0. Negative m leans towards data, positive towards noise.

    A shift adds ln shift to logit t, so it is part of m.
    """

    word = "lognorm"
    ranges: ClassVar[Mapping[str, Range]] = {"m": REAL, "s": POSITIVE, "shift": POSITIVE}

    def __init__(self, m: float | Tensor, s: float | Tensor, shift: float = 1.0) -> None:
        self.check(m=m, s=s, shift=shift)
        self.m, self.s = m if shift == 1 else m + math.log(shift), s

    @staticmethod
    def equals(m: float, s: float, shift: float) -> tuple[str, float, float] | None:
        return ("lognorm", m + math.log(shift), s) if shift > 0 and shift != 1 else None

    def quantile(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.m + self.s * torch.special.ndtri(u))

    def density(self, t: Tensor) -> Tensor:
        n = (torch.logit(t) - self.m) / self.s
        # paper eq. 19
        return torch.exp(-(n**2) / 2) / (self.s * math.sqrt(2 * math.pi) * t * (1 - t))


class Mode(Shiftable):
    """Heavy-tailed, -1 <= s <= 2/(pi-2): positive s favours the middle, negative s the ends, s = 0 is uniform."""

    word = "mode"
    ranges: ClassVar[Mapping[str, Range]] = {
        "s": Range(-1.0, MODE_S_MAX, allowed=f"-1 <= s <= 2/(pi-2) = {MODE_S_MAX!r}"),
        "shift": POSITIVE,
    }
    rounded: ClassVar[Mapping[str, tuple[float, ...]]] = {"s": MODE_S}

    def __init__(self, s: float | Tensor, shift: float | Tensor = 1.0) -> None:
        self.check(s=s)
        self.s = s
        super().__init__(shift)

    @staticmethod
    def equals(s: float, shift: float) -> tuple[str, float] | None:
        return ("uniform", shift) if s == 0 else None

    def law(self, u: Tensor) -> Tensor:
        # paper eq. 20 at 1 - u: the same law, increasing in u
        return u + self.s * (u - torch.sin(math.pi / 2 * u) ** 2)

    def law_density(self, t: Tensor) -> Tensor:
        """No closed form: the quantile function is inverted to 1e-12 by Newton's method inside a shrinking bracket."""
        low = torch.zeros_like(t + 0 * self.s)
        high = torch.ones_like(low)
        u = t + low
        for _ in range(60):
            excess = self.law(u) - t
            low, high = torch.where(excess < 0, u, low), torch.where(excess > 0, u, high)
            newton = u - excess / self._slope(u)
            u = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
        return 1 / self._slope(u)

    def _slope(self, u: Tensor) -> Tensor:
        return 1 + self.s * (1 - math.pi / 2 * torch.sin(math.pi * u))


class CosMap(Shiftable):
    """Gives rf the log-SNR law of the cosine schedule."""

    word = "cosmap"

    def law(self, u: Tensor) -> Tensor:
        # paper eq. 21, 1 - 1/(tan(pi u/2) + 1), as sin/(sin + cos): exact in both tails
        sin, cos = torch.sin(math.pi / 2 * u), torch.sin(math.pi / 2 * (1 - u))
        return sin / (sin + cos)

    def law_density(self, t: Tensor) -> Tensor:
        # paper eq. 22
        return 2 / (math.pi - 2 * math.pi * t + 2 * math.pi * t**2)


class Spectrum(TimestepSampler):
    """Levels are drawn where the ideal error of Gaussian data changes: a law of ln sigma, the same on every path.

    It is the mixture of bumps that `mixture` describes, less what lies above the highest level that a schedule reaches.
    `quantile` and `density` are those on rf, where ln sigma = logit t. A shift multiplies sigma, which on rf is eq. 23.

    eigenvalues: those of the covariance of what the backbone sees, over all of its numbers, as their mixture, which is
    measured where a config says `data`; or one number > 0, for data alike in every direction. Else ValueError.
    """

    word = "spectrum"
    ranges: ClassVar[Mapping[str, Range]] = {"eigenvalues": MEASURABLE, "shift": POSITIVE}
    usual: ClassVar[Mapping[str, float | str]] = {"eigenvalues": "data"}

    def __init__(self, eigenvalues: float | LogisticMixture, shift: float | Tensor = 1.0) -> None:
        self.check(shift=shift)
        if not isinstance(eigenvalues, LogisticMixture):
            self.check(eigenvalues=eigenvalues)
            eigenvalues = LogisticMixture.of([eigenvalues])
        self.mixture, self.shift = eigenvalues, shift

    def quantile(self, u: Tensor) -> Tensor:
        return self.quantile_on(RF(), u)

    def density(self, t: Tensor) -> Tensor:
        return self.density_on(RF(), t)

    def quantile_on(self, schedule: Schedule, u: Tensor) -> Tensor:
        sigma = self.shift * torch.exp(self.mixture.quantile(u * self._reached(schedule, u)))
        return schedule.at_sigma(sigma).t

    def density_on(self, schedule: Schedule, t: Tensor) -> Tensor:
        s = schedule.at_t(t)
        # ln sigma = ln b - ln a, and its derivative in t
        of_log_sigma = self.mixture.density(torch.log(s.sigma / self.shift))
        return of_log_sigma * (s.db / s.b - s.da / s.a) / self._reached(schedule, t)

    def _reached(self, schedule: Schedule, like: Tensor) -> Tensor:
        """The share of the law below the schedule's highest level."""
        top = torch.as_tensor(schedule.sigma_start / self.shift, dtype=torch.float64, device=like.device)
        return self.mixture.cdf(top.log())
