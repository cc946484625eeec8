"""Targets: the network predicts y = p x0 + q eps from c_in z, so a target is a row (p, q), not a branch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from flowzoo.formulation.part import MEASURABLE, Part, Range
from flowzoo.formulation.schedule import State


class Target(Part, ABC):
    """What a target has to say; derive from it to add one. The determinant a q - b p must not vanish inside (0, 1)."""

    place = "path.target"

    @abstractmethod
    def row(self, s: State) -> tuple[Tensor, Tensor]:
        """(p, q), each of the shape of the state's fields."""

    def c_in(self, s: State) -> Tensor:
        """The network sees c_in z."""
        return torch.ones_like(s.a)

    @staticmethod
    def order(a: float, b: float, velocity: float) -> float | None:
        """The power with which the determinant goes to 0 where a, b and that of the velocity have theirs.

        None: it cannot be said, and no loss is refused for its infinite mean (`declared.diverges`).
        """
        return None

    def weight(self, s: State) -> Tensor:
        """loss = weight * mean((net - y)^2). All 61 of the paper are plain MSE: 1."""
        return torch.ones_like(s.a)


class Velocity(Target):
    """The flow velocity, paper eq. 10; determinant 1 on rf."""

    word = "velocity"

    def row(self, s: State) -> tuple[Tensor, Tensor]:
        return s.da, s.db

    @staticmethod
    def order(a: float, b: float, velocity: float) -> float:
        return velocity


class Eps(Target):
    """The noise; determinant a, which vanishes where sigma is infinite."""

    word = "eps"

    def row(self, s: State) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(s.a), torch.ones_like(s.a)

    @staticmethod
    def order(a: float, b: float, velocity: float) -> float:
        return a


class V(Target):
    """v = a eps - b x0 (Salimans and Ho 2022); determinant a^2 + b^2."""

    word = "v"

    def row(self, s: State) -> tuple[Tensor, Tensor]:
        return -s.b, s.a

    @staticmethod
    def order(a: float, b: float, velocity: float) -> float:
        return 2 * min(a, b)


class X0(Target):
    """The data; determinant -b, which vanishes at t = 0 alone."""

    word = "x0"

    def row(self, s: State) -> tuple[Tensor, Tensor]:
        return torch.ones_like(s.a), torch.zeros_like(s.a)

    @staticmethod
    def order(a: float, b: float, velocity: float) -> float:
        return b


class F(Target):
    """EDM's preconditioned network (Karras et al. 2022, table 1) for any a; with n^2 = a^2 sd^2 + b^2, det -n/sd.

    `sigma_data` > 0: the data's deviation sd, a number or a tensor with a leading variant axis; else ValueError.
    """

    word = "F"
    ranges: ClassVar[Mapping[str, Range]] = {"sigma_data": MEASURABLE}
    usual: ClassVar[Mapping[str, float]] = {"sigma_data": 0.5}

    def __init__(self, sigma_data: float | Tensor) -> None:
        self.check(sigma_data=sigma_data)
        self.sigma_data = sigma_data

    def row(self, s: State) -> tuple[Tensor, Tensor]:
        sd = self.sigma_data
        # Karras et al. 2022, eq. 8 solved for F: p = b/(sd n), q = -a sd/n; exact at sigma = 0, inf
        p = 1 / (sd * torch.sqrt(1 + (s.a * sd / s.b) ** 2))
        return p, -s.a * sd * self.c_in(s)

    def c_in(self, s: State) -> Tensor:
        return 1 / torch.sqrt((s.a * self.sigma_data) ** 2 + s.b**2)

    @staticmethod
    def order(a: float, b: float, velocity: float) -> float:
        return min(a, b)
