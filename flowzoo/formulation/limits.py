"""What is allowed beyond the ranges of parameters, without torch: classes and commands refuse in the same words."""

from functools import partial
from typing import Any

from flowzoo.formulation.part import POSITIVE, Range

check_shift = partial(POSITIVE.check, "solver.shift")
check_steps = partial(Range(low=1, allowed="1 or more").check, "steps")


def diverges(schedule: Any, predicted: Any, measured: Any) -> bool:
    """Whether the mean weight of an error at uniform t is infinite: of a prediction, measured in another target.

    Each is a part, or what is declared of one: a schedule with `ends`, targets with `order`. False where it cannot be
    said.
    """
    if schedule.ends is None or predicted.word == measured.word:
        return False
    for end in zip(*schedule.ends, strict=True):
        one, other = measured.order(*end), predicted.order(*end)
        # the mean of t^(2 order) is finite for orders above -1/2
        if one is not None and other is not None and one - other <= -0.5:
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
