"""What is allowed, without torch: classes and the command line refuse the same values with the same words."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

MODE_S_MAX = 2 / (math.pi - 2)  # where the slope of mode's quantile function reaches 0 at u = 1/2 (paper sec. 3.1)


@dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`; `above` leaves `low` itself out."""

    name: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    allowed: str = "a finite number"

    def check(self, value: Any) -> None:
        """Raise ValueError unless `value`, or every number of an array or tensor with a variant axis, is in range."""
        numbers = value.tolist() if hasattr(value, "tolist") else value
        try:
            if isinstance(numbers, str | bytes | bool):
                raise TypeError
            x = np.asarray(numbers, dtype=float)
        except (TypeError, ValueError):
            raise ValueError(f"{self.name} = {value!r} is not a number; allowed: {self.allowed}") from None
        low_enough = x > self.low if self.above else x >= self.low
        if not (np.isfinite(x) & low_enough & (x <= self.high)).all():
            raise ValueError(f"{self.name} = {numbers!r} is out of range; allowed: {self.allowed}")


def _positive(name: str) -> Range:
    return Range(name, low=0.0, above=True, allowed="a finite number > 0")


check_lognorm_m = Range("lognorm's m").check
check_lognorm_s = _positive("lognorm's s").check
check_mode_s = Range("mode's s", -1.0, MODE_S_MAX, allowed=f"-1 <= s <= 2/(pi-2) = {MODE_S_MAX!r}").check
check_P_m = Range("EDM's P_m").check
check_P_s = _positive("EDM's P_s").check
check_sigma_data = _positive("sigma_data").check
check_shift = _positive("solver.shift").check
check_steps = Range("steps", low=1, allowed="1 or more").check


def no_other_law(schedule: str, sampler: str) -> str:
    """Why a schedule whose timestep law is part of it refuses a sampler."""
    return f"{schedule} takes the uniform sampler only, not {sampler}: its timestep law is part of the path"


def no_euler_t(schedule: str) -> str:
    """Why a schedule is refused by steps in t."""
    return f"solver=euler_t is not offered for {schedule}: d sigma/dt explodes at its top; allowed: recombine, heun"


def no_uniform_t(schedule: str) -> str:
    """Why a schedule is refused by a grid uniform in t."""
    return (
        f"solver/grid=uniform_t is not offered for {schedule}: its first step would go from sigma = 80 to about 1; "
        "allowed: common, path, karras"
    )
