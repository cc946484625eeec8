"""Schedules: a(t), b(t) of z = a x0 + b eps and their derivatives, t = 0 data and t = 1 noise, at t or at sigma = b/a.

Every function takes and gives float64 tensors. a and b come from whichever of t and sigma was asked for, never through
the other: sigma = 80 on edm(-1.20,0.60) is 1 - t = 7e-21, which t cannot hold.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from flowzoo.formulation.part import POSITIVE, REAL, Part, Range

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0  # Karras et al. 2022, table 1


class State(NamedTuple):
    """One point of a path; all fields of one shape."""

    t: Tensor
    a: Tensor
    b: Tensor
    da: Tensor  # da/dt
    db: Tensor  # db/dt

    @property
    def sigma(self) -> Tensor:
        """b/a, infinite where a = 0."""
        return self.b / self.a


def uniform_levels(schedule: "Schedule", steps: int) -> Tensor:
    """sigma [steps + 1] at uniform t from 1 to 0."""
    return schedule.at_t(torch.linspace(1, 0, steps + 1, dtype=torch.float64)).sigma


def karras_levels(steps: int, sigma_max: float = SIGMA_MAX) -> Tensor:
    """sigma [steps + 1] from `sigma_max` to 0.002, then 0."""
    low, high = SIGMA_MIN ** (1 / RHO), sigma_max ** (1 / RHO)
    # Karras et al. 2022, eq. 5
    levels = (high + torch.linspace(0, 1, steps, dtype=torch.float64) * (low - high)) ** RHO
    levels[0] = sigma_max
    return torch.cat([levels, levels.new_zeros(1)])


class Schedule(Part, ABC):
    """What a schedule has to say; derive from it to add one."""

    place = "path.schedule"
    sigma_start: float = math.inf  # sigma at t = 1, or the highest level that sampling starts from
    fixed_law: bool = False  # the timestep law is part of the path: only the uniform sampler fits
    euler_t: bool = True  # Euler steps in t are offered
    uniform_t: bool = True  # a grid uniform in t is offered
    # How a, b and the velocity's determinant a b' - b a' go to 0 or infinity: powers of t at data, of 1 - t at noise.
    # None: it cannot be said, or training meets levels alone, which have no ends.
    ends: ClassVar[tuple[tuple[float, float], ...] | None] = None

    @abstractmethod
    def at_t(self, t: Tensor) -> State:
        """The path at times t in [0, 1]."""

    @abstractmethod
    def at_sigma(self, sigma: Tensor) -> State:
        """The path where b/a = sigma; 0 and, if the path reaches it, infinity included."""

    def training_time(self, t: Tensor) -> Tensor:
        """The time that training uses for a drawn t: t itself, unless the path has levels."""
        return t

    def label(self, state: State) -> Tensor:
        """What the time embedding gets, 0..1000."""
        return 1000 * state.t

    def levels(self, steps: int) -> Tensor:
        """The path's usual sampling grid: sigma [steps + 1], falling to 0."""
        return uniform_levels(self, steps)


class RF(Schedule):
    """Rectified flow, paper sec. 3."""

    word = "rf"
    ends = ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0))

    def at_t(self, t: Tensor) -> State:
        # paper eq. 13
        return State(t, 1 - t, t, -torch.ones_like(t), torch.ones_like(t))

    def at_sigma(self, sigma: Tensor) -> State:
        t = 1 / (1 + 1 / sigma)
        return State(t, 1 / (1 + sigma), t, -torch.ones_like(t), torch.ones_like(t))


class Cosine(Schedule):
    """Nichol and Dhariwal's schedule as in paper sec. 3."""

    word = "cos"
    ends = ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0))

    def at_t(self, t: Tensor) -> State:
        # paper sec. 3: a = cos(pi t/2), b = sin(pi t/2); as a sine the first is exactly 0 at t = 1
        a, b = torch.sin(math.pi / 2 * (1 - t)), torch.sin(math.pi / 2 * t)
        return State(t, a, b, -math.pi / 2 * b, math.pi / 2 * a)

    def at_sigma(self, sigma: Tensor) -> State:
        a, b = _variance_preserving(sigma)
        return State(2 / math.pi * torch.atan(sigma), a, b, -math.pi / 2 * b, math.pi / 2 * a)


def _variance_preserving(sigma: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones_like(sigma)
    return 1 / torch.hypot(one, sigma), 1 / torch.hypot(one, 1 / sigma)


class _Levels(Schedule):
    """Variance preserving with T = 1000 levels: abar(n) = prod_{s < n} (1 - beta_s), continued to real n = T t.

    1 - beta_s is a product of factors c + s d, so the continuation is Gamma functions. Training rounds t up to a level;
    `at_t` and `at_sigma` take any t. db is infinite at t = 0.
    """

    T = 1000
    factors: tuple[tuple[float, float], ...]

    def __init__(self) -> None:
        self.sigma_start = float(self.at_t(torch.ones((), dtype=torch.float64)).sigma)

    def log_abar(self, n: Tensor) -> Tensor:
        return sum((_log_product(c, d, n) for c, d in self.factors), torch.zeros_like(n))

    def slope(self, n: Tensor) -> Tensor:
        """d log abar / dn."""
        # d/dx log Gamma(x) = psi(x), applied to the ratios of `_log_product`
        terms = (math.log(abs(d)) + torch.digamma(c / d + n if d > 0 else 1 - c / d - n) for c, d in self.factors)
        return sum(terms, torch.zeros_like(n))

    def at_t(self, t: Tensor) -> State:
        log_abar = self.log_abar(self.T * t)
        return self._state(t, torch.exp(log_abar / 2), torch.sqrt(-torch.expm1(log_abar)))

    def at_sigma(self, sigma: Tensor) -> State:
        """Levels above sigma(1) raise ValueError: the path does not reach them."""
        if (sigma > self.sigma_start * (1 + 1e-12)).any():
            raise ValueError(f"sigma = {sigma.max().item()} is above this path's highest level, {self.sigma_start}")
        log_abar = -torch.log1p(sigma**2)
        n = torch.full_like(sigma, self.T)
        # log abar is concave and falling, so Newton's method from the right end converges monotonically
        for _ in range(20):
            n = (n - (self.log_abar(n) - log_abar) / self.slope(n)).clamp(0, self.T)
        return self._state(n / self.T, *_variance_preserving(sigma))

    def _state(self, t: Tensor, a: Tensor, b: Tensor) -> State:
        slope = self.T * self.slope(self.T * t)
        # from a^2 = abar and b^2 = 1 - abar
        return State(t, a, b, a * slope / 2, -(a**2) * slope / (2 * b))

    def training_time(self, t: Tensor) -> Tensor:
        return torch.ceil(self.T * t).clamp(1, self.T) / self.T


def _log_product(c: float, d: float, n: Tensor) -> Tensor:
    """log prod_{s=0}^{n-1} (c + s d), continued in n; exactly 0 at n = 0.

    With x the lowest factor over |d| this is n log|d| + log Gamma(x + n) - log Gamma(x). Both Gammas are near 1e5 here,
    so the difference is taken term by term in Stirling's series (x > 1e4: the first term left out is below 1e-23).
    """
    x = torch.full_like(n, c / d) if d > 0 else 1 - c / d - n
    y = x + n
    tail = (1 / y - 1 / x) / 12 - (1 / y**3 - 1 / x**3) / 360
    return (x - 0.5) * torch.log1p(n / x) - n + n * torch.log(abs(d) * y) + tail


class LDMLinear(_Levels):
    """Latent diffusion's schedule, sqrt(beta_s) linear in s (paper sec. 3); abar(1) is not 0: sigma(1) = 14.6."""

    word = "linear"

    _r0 = math.sqrt(0.00085)
    _d = (math.sqrt(0.012) - _r0) / (_Levels.T - 1)
    # 1 - beta_s = (1 - r_s)(1 + r_s), r_s = sqrt(beta_s) = r_0 + s d
    factors = ((1 - _r0, -_d), (1 + _r0, _d))


class DDPMLinear(_Levels):
    """Ho et al. 2020: beta_s linear in s from 1e-4 to 0.02."""

    word = "ddpm_linear"

    factors = ((1 - 1e-4, -(0.02 - 1e-4) / (_Levels.T - 1)),)


class _VarianceExploding(Schedule):
    """a = 1, b = sigma: EDM's network, for which the law of sigma is the path itself."""

    sigma_start = SIGMA_MAX
    fixed_law = True
    euler_t = False  # d sigma/dt at sigma = 80 is 1e3 to 1e13

    def label(self, state: State) -> Tensor:
        # linear in ln sigma, so that levels outside the training law stay distinct
        return 1000 * (torch.log(state.b) - math.log(SIGMA_MIN)) / (math.log(SIGMA_MAX) - math.log(SIGMA_MIN))

    def levels(self, steps: int) -> Tensor:
        return karras_levels(steps)

    @staticmethod
    def _state(t: Tensor, sigma: Tensor, dsigma: Tensor) -> State:
        return State(t, torch.ones_like(sigma), sigma, torch.zeros_like(sigma), dsigma)


class EDM(_VarianceExploding):
    """sigma log-normal: ln sigma ~ N(P_m, P_s^2) (paper sec. 3; Karras et al. 2022).

    `P_m`, `P_s` > 0: numbers, or tensors with a leading variant axis, [V, 1]. Out of range: ValueError.
    """

    word = "edm"
    ranges: ClassVar[Mapping[str, Range]] = {"P_m": REAL, "P_s": POSITIVE}
    # sigma has every moment, but not its derivative
    ends = ((0.0, 0.0), (0.0, 0.0), (-math.inf, -math.inf))
    # one step of 1/N in t goes from 80 to exp(P_m + P_s Phi^-1(1 - 1/N)), 0.86 for edm(-1.20,0.60) at 25 steps
    uniform_t = False

    def __init__(self, P_m: float | Tensor, P_s: float | Tensor) -> None:
        self.check(P_m=P_m, P_s=P_s)
        self.P_m, self.P_s = P_m, P_s

    def at_t(self, t: Tensor) -> State:
        n = torch.special.ndtri(t)
        # paper sec. 3: sigma_t = exp(P_m + P_s Phi^-1(t))
        return self._at(t, n, torch.exp(self.P_m + self.P_s * n))

    def at_sigma(self, sigma: Tensor) -> State:
        n = (torch.log(sigma) - self.P_m) / self.P_s
        # plain ndtr is 0 already at -9.3
        return self._at(torch.exp(torch.special.log_ndtr(n)), n, sigma.expand_as(n))

    def _at(self, t: Tensor, n: Tensor, sigma: Tensor) -> State:
        # d sigma/dt = sigma P_s / phi(n), the exponents P_m + P_s n + n^2/2 as a square: not NaN at sigma = 0
        exponent = self.P_m + ((n + self.P_s) ** 2 - self.P_s**2) / 2
        dsigma = self.P_s * math.sqrt(2 * math.pi) * torch.exp(exponent)
        return self._state(t.expand_as(sigma), sigma, dsigma)


class EDMRF(_VarianceExploding):
    """EDM's network with rf's law of the log-SNR (paper sec. 3, read as the law of lambda)."""

    word = "edm_rf"
    ends = ((0.0, 0.0), (1.0, -1.0), (0.0, -2.0))

    def at_t(self, t: Tensor) -> State:
        return self._state(t, t / (1 - t), 1 / (1 - t) ** 2)

    def at_sigma(self, sigma: Tensor) -> State:
        return self._state(1 / (1 + 1 / sigma), sigma, (1 + sigma) ** 2)


class EDMCosine(_VarianceExploding):
    """EDM's network with cosine's law of the log-SNR (paper sec. 3, read as the law of lambda)."""

    word = "edm_cos"
    ends = ((0.0, 0.0), (1.0, -1.0), (0.0, -2.0))

    def at_t(self, t: Tensor) -> State:
        # tan(pi t/2), exactly infinite at t = 1
        sigma = torch.sin(math.pi / 2 * t) / torch.sin(math.pi / 2 * (1 - t))
        return self._state(t, sigma, math.pi / 2 * (1 + sigma**2))

    def at_sigma(self, sigma: Tensor) -> State:
        return self._state(2 / math.pi * torch.atan(sigma), sigma, math.pi / 2 * (1 + sigma**2))
