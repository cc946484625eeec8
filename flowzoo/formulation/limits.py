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
check_sampler_shift = _positive("sampler.shift").check
check_clip = _positive("path.loss.clip").check
check_gamma = _positive("weighting.gamma").check
check_steps = Range("steps", low=1, allowed="1 or more").check


# How a, b and the velocity's determinant a b' - b a' go to 0 or infinity, as powers of t at data and of 1 - t at noise.
# Schedules that training meets at levels alone have no ends. EDM's sigma has every moment, but not its derivative.
_NONE = (0.0, 0.0)
_ORDERS: dict[str, tuple[tuple[float, float], ...]] = {
    "RF": ((0.0, 1.0), (1.0, 0.0), _NONE),
    "Cosine": ((0.0, 1.0), (1.0, 0.0), _NONE),
    "EDM": (_NONE, _NONE, (-math.inf, -math.inf)),
    "EDMRF": (_NONE, (1.0, -1.0), (0.0, -2.0)),
    "EDMCosine": (_NONE, (1.0, -1.0), (0.0, -2.0)),
}
_SPACES = {"OnX0": "X0", "OnEps": "Eps", "OnVelocity": "Velocity"}  # the target that a loss is measured in


def _order(target: str, a: float, b: float, velocity: float) -> float | None:
    """Of the determinant of a target; None for an unknown one."""
    least = min(a, b)
    return {"X0": b, "Eps": a, "Velocity": velocity, "V": 2 * least, "F": least}.get(target)


def diverges(schedule: str, target: str, loss: str) -> bool:
    """Whether the mean weight of a loss at uniform t is infinite, all by the names of their classes."""
    space = _SPACES.get(loss)
    if schedule not in _ORDERS or space is None or space == target:
        return False
    for end in zip(*_ORDERS[schedule], strict=True):
        measured, predicted = _order(space, *end), _order(target, *end)
        # the mean of t^(2 order) is finite for orders above -1/2
        if measured is not None and predicted is not None and measured - predicted <= -0.5:
            return True
    return False


def no_clip(schedule: str, target: str, loss: str) -> str:
    """Why a loss without a clip is refused where its mean weight is infinite."""
    return (
        f"path/loss={loss} with path.loss.clip=null: its mean weight for a prediction of {target} on {schedule} is "
        "infinite at uniform t; allowed: path.loss.clip above 0, the largest weight, for instance 100"
    )


def no_weighting_of_a_loss(weighting: str, loss: str) -> str:
    """Why a weighting refuses a loss that is measured elsewhere."""
    return f"path/loss={loss} with weighting={weighting}: a weighting is of the error of eps; allowed: path/loss=target"


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
