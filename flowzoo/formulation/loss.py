"""Where the error of a prediction is measured: in the target itself, or in x0, eps or the velocity that it implies.

The network's output and z give (x0hat, epshat), and a x0hat + b epshat = z is exact. So the error of y = p x0 + q eps
and that of y' = p' x0 + q' eps are proportional, and an error measured in y' is a weight on the error of y:

    ||y'hat - y'||^2 = ((a q' - b p')/(a q - b p))^2 ||yhat - y||^2
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from flowzoo.formulation.part import POSITIVE, Part, Range
from flowzoo.formulation.schedule import State
from flowzoo.formulation.target import X0, Eps, Target, Velocity


class Loss(Part, ABC):
    """What a loss has to say; derive from it to add one."""

    place = "path.loss"
    space: Target | None = None  # that the error is measured in, with the same word; None for any other loss
    clip: float | Tensor | None = None  # the largest weight

    @abstractmethod
    def weight(self, s: State, determinant: Tensor) -> Tensor:
        """The weight on the squared error of the output, where `determinant` is the target's a q - b p."""


class OnTarget(Loss):
    """The error of what the network predicts, as it is: weight 1."""

    word = "target"

    def weight(self, s: State, determinant: Tensor) -> Tensor:
        return torch.ones_like(s.a)


class _OnSpace(Loss):
    """Of another target; weights above `clip` > 0 (None: no clip) are cut to it. ValueError for another clip."""

    space: Target
    ranges: ClassVar[Mapping[str, Range]] = {"clip": POSITIVE}

    def __init__(self, clip: float | Tensor | None = None) -> None:
        if clip is not None:
            self.check(clip=clip)
        self.clip = clip

    def weight(self, s: State, determinant: Tensor) -> Tensor:
        p, q = self.space.row(s)
        weight = ratio(s.a * q - s.b * p, determinant).square()
        return weight if self.clip is None else torch.clamp(weight, max=torch.as_tensor(self.clip).to(weight))


class OnX0(_OnSpace):
    """The error of the data."""

    word = "x0"
    space = X0()


class OnEps(_OnSpace):
    """The error of the noise."""

    word = "eps"
    space = Eps()


class OnVelocity(_OnSpace):
    """The error of the flow velocity."""

    word = "velocity"
    space = Velocity()


def ratio(one: Tensor, other: Tensor) -> Tensor:
    """one / other, 1 where they are equal, both 0 or infinite included."""
    return torch.where(one == other, 1.0, one / other)
