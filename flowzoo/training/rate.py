"""Learning-rate schedules: the factor on an optimiser's rate at each step, the same for all variants."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Rate(Protocol):
    """One number a step. It depends on the step alone, so that training goes on exactly."""

    def factor(self, step: int, steps: int) -> float:
        """The factor on `lr` for the step that follows `step` finished ones, 0 <= step < steps; finite, not negative.

        `steps` is the length of the whole training.
        """


@dataclass(frozen=True)
class Linear:
    """Linear warm-up (paper, sec. B.3), then linear decay to `decay_to` times the rate at the last step."""

    warmup_steps: int = 1000
    decay_to: float = 1.0

    def factor(self, step: int, steps: int) -> float:
        """As `Rate.factor`."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        done = max(0, step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return warm * (1 - (1 - self.decay_to) * min(1.0, done))


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then half a cosine down to 0 at the last step (Loshchilov and Hutter 2017, eq. 5)."""

    warmup_steps: int = 1000

    def factor(self, step: int, steps: int) -> float:
        """As `Rate.factor`."""
        rest = (step - self.warmup_steps) / max(steps - self.warmup_steps, 1)
        return min((step + 1) / max(self.warmup_steps, 1), 0.5 * (1 + math.cos(math.pi * max(rest, 0.0))))


def check_rate(rate: Rate, steps: int) -> None:
    """Raises ValueError where a factor is no finite number of at least 0."""
    for step in sorted({0, 1, steps // 2, steps - 1} & set(range(steps))):
        value = rate.factor(step, steps)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
            raise ValueError(f"factor({step}, {steps}) is {value!r}; allowed is a finite number of at least 0")


def factors(rate: Rate, steps: int) -> Sequence[float]:
    """Of each step of a training, and of the one after it."""
    return [rate.factor(step, steps) for step in range(steps + 1)]
