"""Parts from outside the package, made and tried with stand-ins for what they work on. Part of the door.

What is refused here would be a traceback in the middle of a run, or numbers that mean nothing.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from flowzoo.build import formulation_of, optimizer_of, rate_of
from flowzoo.runs.files import explained
from flowzoo.training.ema import Average, check_average
from flowzoo.training.optimizer import RowOptimizer, TorchOptimizer, alone, needs_whole_weights
from flowzoo.training.rate import Rate, check_rate
from flowzoo.training.updates import check_rows, check_torch

_passed: set[str] = set()  # what was tried in this process, as a text of its config


def try_parts(values: Mapping[str, Any], outside: Mapping[str, str]) -> None:
    """Tries the parts of a resolved config at the places `outside`, each with its class. Raises ValueError."""
    cfg: Any = OmegaConf.create(dict(values))
    for places, kind in TRIALS.items():
        if found := [place for place in outside if place in places]:
            seen = {key.split(".")[0] for key in (*places, "trainer", "stack")}
            told = json.dumps([kind.__name__, {key: values.get(key) for key in sorted(seen)}], default=str)
            if told not in _passed:
                _tried(kind, cfg, found[0], outside[found[0]])
            _passed.add(told)


def _tried(kind: Callable[[DictConfig, str, str], None], cfg: DictConfig, place: str, target: str) -> None:
    try:
        kind(cfg, place, target)
    except Exception as error:  # a class from outside may raise anything
        told = str(explained(error))
        raise ValueError(told if told.startswith(place) else f"{place}: {target}: {told}") from error


def check_has(made: Any, interface: type) -> None:
    """Raises ValueError that names all that an object lacks of an interface."""
    asked = [name for name in (*vars(interface), *getattr(interface, "__annotations__", {})) if name[0] != "_"]
    if missing := [name for name in dict.fromkeys(asked) if not hasattr(made, name)]:
        raise ValueError(
            f"it lacks {', '.join(missing)}; {interface.__module__}.{interface.__name__} says what each is for"
        )


def _optimizer(cfg: DictConfig, place: str, target: str) -> None:
    optimizer = optimizer_of(cfg.optimizer)
    if isinstance(optimizer, TorchOptimizer):
        if cfg.get("stack") is not None:
            raise ValueError(alone(target))
        check_torch(optimizer)
    elif isinstance(optimizer, RowOptimizer):
        check_rows(optimizer)
    else:
        raise ValueError(
            "it is derived neither from torch.optim.Optimizer nor from flowzoo.training.optimizer.RowOptimizer; "
            "allowed is a class that is"
        )
    if cfg.trainer.strategy == "sharded" and (isinstance(optimizer, TorchOptimizer) or optimizer.by_weight):
        raise ValueError(needs_whole_weights(optimizer))


def _rate(cfg: DictConfig, place: str, target: str) -> None:
    rate = rate_of(cfg.optimizer)
    check_has(rate, Rate)
    check_rate(rate, cfg.trainer.steps)


def _average(cfg: DictConfig, place: str, target: str) -> None:
    each = [instantiate(cfg.ema) for _ in range(2)]
    check_has(each[0], Average)
    check_average(*each)


def _formulation(cfg: DictConfig, place: str, target: str) -> None:
    """Draws times and takes two steps, so that a law, rule or grid that does not fit is refused now."""
    white = {"deviation": 1.0, "spectrum": {"centres": [0.0], "masses": [1.0]}}
    formulation = formulation_of(cfg, white)
    formulation.density(formulation.coefficients(torch.tensor([0.25, 0.75])).t)
    instantiate(cfg.solver).sample(lambda z, c: torch.zeros_like(z), formulation, torch.ones(1, 1), steps=2)


class Trial(Protocol):
    __name__: str

    def __call__(self, cfg: DictConfig, place: str, target: str) -> None: ...


FORMULATION = (
    "path.schedule",
    "path.target",
    "path.loss",
    "sampler",
    "weighting",
    "solver.rule",
    "solver.grid",
    "solver",
)
# By the keys of a config that the parts stand at.
TRIALS: dict[tuple[str, ...], Trial] = {
    FORMULATION: _formulation,
    ("optimizer",): _optimizer,
    ("optimizer.rate",): _rate,
    ("ema",): _average,
}
