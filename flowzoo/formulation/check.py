"""Configs of formulations and solvers are refused before they are built; without torch."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flowzoo.formulation import limits
from flowzoo.formulation.declared import (
    LOSSES,
    SAMPLERS,
    SCHEDULES,
    TARGETS,
    WEIGHTINGS,
    Config,
    Declared,
    known,
    own_class,
    simplest,
    target_of,
)
from flowzoo.formulation.spelling import call, words


def check(path: Config, sampler: Config, weighting: Config | None = None) -> None:
    """Raise ValueError for parameters unknown, missing or out of range, and for parts that do not fit together.

    Classes from outside the package pass: their constructors know their ranges.
    """
    _check_part("path.schedule", path["schedule"], SCHEDULES)
    _check_part("path.target", path["target"], TARGETS)
    if path.get("loss") is not None:
        _check_part("path.loss", path["loss"], LOSSES)
    _check_part("sampler", sampler, SAMPLERS)
    if weighting is not None:
        _check_part("weighting", weighting, WEIGHTINGS)
    simple = simplest({"path": path, "sampler": sampler, "weighting": weighting})
    schedule, target = known(path["schedule"], SCHEDULES), known(path["target"], TARGETS)
    law = words(simple["sampler"], SAMPLERS)
    if schedule and schedule.fixed_law and (known(simple["sampler"], SAMPLERS) is None or law != ("uniform", [])):
        raise ValueError(limits.no_other_law(schedule.word, call(*law)))
    if "loss" in simple["path"]:
        loss, own = simple["path"]["loss"], known(simple["path"]["loss"], LOSSES)
        measured = next((one for one in TARGETS.values() if own and one.word == own.word), None)
        ours = schedule and target and measured and (schedule, target, measured)
        if ours and loss.get("clip") is None and limits.diverges(*ours):
            raise ValueError(limits.no_clip(*(one.word for one in ours)))
        if "weighting" in simple:
            weight = words(simple["weighting"], WEIGHTINGS)[0]
            raise ValueError(limits.no_weighting_of_a_loss(weight, own.word if own else target_of(loss)))


def _check_part(place: str, part: Config, kind: Mapping[str, Declared]) -> None:
    cls, own = target_of(part), known(part, kind)
    if own is None and own_class(cls) is None:
        return
    if own is None or not _is_there(cls, own):
        allowed = ", ".join(one.target for one in kind.values())
        raise ValueError(f"{place}._target_ = {cls} does not exist; allowed: {allowed}")
    given = {key for key in part if not key.startswith("_")}
    if not set(own.ranges) - set(own.defaults) <= given <= set(own.ranges):
        allowed = ", ".join(own.ranges) or "none"
        raise ValueError(f"{place} has the parameters {', '.join(sorted(given)) or 'none'}; {cls} takes: {allowed}")
    for key in own.ranges.keys() & given:
        value: Any = part[key]
        if isinstance(value, list | Mapping):  # several numbers are a stack's, which configs never hold
            raise ValueError(f"{place}.{key}={value}: allowed is one number")
        own.check(key, value)


def _is_there(target: str, own: Declared) -> bool:
    """Whether a path leads to a class of ours; anything but the path that is declared is imported to find out."""
    if target == own.target:
        return True
    (module, _, cls), (home, _, _) = target.rpartition("."), own.target.rpartition(".")
    try:
        return getattr(import_module(module), cls) is getattr(import_module(home), cls)
    except (ImportError, AttributeError):
        return False


def check_solver(solver: Config, path: Config) -> None:
    """Raise ValueError if a solver's config {rule, grid, shift} is out of range or does not fit the path."""
    limits.check_shift(solver["shift"])
    schedule = known(path["schedule"], SCHEDULES)
    if schedule and not schedule.euler_t and own_class(target_of(solver["rule"])) == "EulerT":
        raise ValueError(limits.no_euler_t(schedule.word))
    if schedule and not schedule.uniform_t and own_class(target_of(solver["grid"])) == "UniformT":
        raise ValueError(limits.no_uniform_t(schedule.word))
