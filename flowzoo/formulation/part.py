"""What a part of a formulation says of itself, once, in the body of its class.

This module imports no torch, and what a class declares uses only what stands here: `declared` reads it from the source
of the class, so that names and checks know every part without importing torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

MODE_S_MAX = 2 / (math.pi - 2)  # where the slope of mode's quantile function reaches 0 at u = 1/2 (paper sec. 3.1)
MODE_S = tuple(-1 + 2.75 * i / 6 for i in range(7))  # paper sec. 5.1.1; its printed values are rounded


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`; `above` leaves `low` itself out.

    `word`: what a config may hold instead of a number, which is put in where it is known.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    allowed: str = "a finite number"
    word: str | None = None

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError unless `value`, or every number of an array or tensor with a variant axis, is in range."""
        numbers = value.tolist() if hasattr(value, "tolist") else value
        try:
            if isinstance(numbers, str | bytes | bool):
                raise TypeError
            x = np.asarray(numbers, dtype=float)
        except (TypeError, ValueError):
            raise ValueError(f"{name} = {value!r} is not a number; allowed: {self.allowed}") from None
        low_enough = x > self.low if self.above else x >= self.low
        if not (np.isfinite(x) & low_enough & (x <= self.high)).all():
            raise ValueError(f"{name} = {numbers!r} is out of range; allowed: {self.allowed}")


REAL = Range()
POSITIVE = Range(low=0.0, above=True, allowed="a finite number > 0")
MEASURABLE = Range(low=0.0, above=True, allowed="a finite number > 0, or data in a config", word="data")


class Part:
    """The base of schedules, targets, timestep laws, losses and weightings.

    A class of this package has a `word`, and a range for each parameter of its constructor. One without a word comes
    from outside of the package and is named by its class and its parameters.
    """

    place: ClassVar[str]  # of its kind in a config
    word: ClassVar[str | None] = None  # in names; the option of its group where the paper has no other
    ranges: ClassVar[Mapping[str, Range]] = {}
    usual: ClassVar[
        Mapping[str, float | str]
    ] = {}  # at which names leave a parameter out, beside the constructor's defaults
    rounded: ClassVar[Mapping[str, tuple[float, ...]]] = {}  # numbers that names print with two digits nevertheless

    def check(self, **values: Any) -> None:
        """Raise ValueError for the first of the parameters that is out of range."""
        for key, value in values.items():
            self.ranges[key].check(f"{self.place}.{key}", value)
