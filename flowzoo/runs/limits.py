"""Which values a key may have, in words and as a test: those that belong to no object with a check of its own."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Limit(NamedTuple):
    """What is allowed, in words and as a test; `form` gives an allowed value in the type that its reader expects."""

    allowed: str
    holds: Callable[[Any], bool]
    form: Callable[[Any], Any] = lambda x: x


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_real(value) and math.isfinite(value)


def integer(least: int) -> Limit:
    return Limit(f"an integer of at least {least}", lambda x: _is_integer(x) and x >= least)


def number(words: str, holds: Callable[[float], bool]) -> Limit:
    return Limit(words, lambda x: _is_number(x) and holds(x), lambda x: float(x) + 0.0)  # one zero, not two


def one_of(*values: Any) -> Limit:
    return Limit(", ".join(map(spelled, values)), lambda x: any(type(x) is type(v) and x == v for v in values))


def either(*limits: Limit) -> Limit:
    return Limit(
        " or ".join(limit.allowed for limit in limits),
        lambda x: any(limit.holds(x) for limit in limits),
        lambda x: next(limit.form(x) for limit in limits if limit.holds(x)),
    )


def list_of(limit: Limit) -> Limit:
    return Limit(
        f"a list, each {limit.allowed}",
        lambda x: isinstance(x, list) and bool(x) and all(map(limit.holds, x)),
        lambda x: list(map(limit.form, x)),
    )


def spelled(value: Any) -> str:
    return "true" if value is True else "false" if value is False else "null" if value is None else str(value)


def _is_setting(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == {"steps", "guidance"}
        and integer(1).holds(value["steps"])
        and NOT_NEGATIVE.holds(value["guidance"])
    )


POSITIVE = number("a number greater than 0", lambda x: x > 0)
NOT_NEGATIVE = number("a number of at least 0", lambda x: x >= 0)
BELOW_ONE = number("a number in [0, 1)", lambda x: 0 <= x < 1)
ACCELERATOR = one_of("auto", "cpu", "gpu", "cuda")
SHARE = number("a number in [0, 1]", lambda x: 0 <= x <= 1)
FLAG = one_of(True, False)
_GRIDS = {"common": "Common", "path": "Path", "uniform_t": "UniformT", "karras": "Karras"}  # of solver/grid
GRIDS = {name: f"flowzoo.sampling.grid.{kind}" for name, kind in _GRIDS.items()}
SETTINGS = list_of(
    Limit(
        "{steps: integer of at least 1, guidance: number of at least 0}",
        _is_setting,
        lambda x: {**x, "guidance": NOT_NEGATIVE.form(x["guidance"])},
    )
)
INTERVAL = Limit(  # its high end may be infinite, where rf starts
    "[low, high] of sigma with 0 <= low <= high, such as [0.2,5] or [0.2,inf]",
    lambda x: isinstance(x, list) and len(x) == 2 and NOT_NEGATIVE.holds(x[0]) and _is_real(x[1]) and x[0] <= x[1],
)
RECTANGLE = Limit(  # a square has one spelling, as runs are named by their settings
    "[H, W] of two different ones",
    lambda x: list_of(integer(1)).holds(x) and len(x) == len(set(x)) == 2,
)
FOLDER_NAME = Limit(
    "a name of one folder: letters, digits and . _ + -",
    lambda x: isinstance(x, str) and x.strip(".") != "" and all(c.isalnum() or c in "._+-" for c in x),
)
NAME = Limit("a name", lambda x: isinstance(x, str) and x.strip() != "")

# The values that belong to no object with a check of its own. A key that a config lacks is not checked.
LIMITS: dict[str, Limit] = {
    "seed": integer(0),
    "data.name": NAME,
    "sigma_data": either(one_of("data"), POSITIVE),
    "captions": one_of("mix", "terse", "dense"),
    "trainer.steps": integer(1),
    "trainer.batch_size": integer(1),
    "trainer.accumulate": integer(1),
    # no 16-bit floats: their gradient scaler overflows on purpose, which here is divergence; no weights in bf16 alone,
    # which smaller steps of AdamW do not move
    "trainer.precision": one_of("auto", "32-true", "64-true", "bf16-mixed"),
    "trainer.clip_norm": either(one_of(None), POSITIVE),
    "trainer.compile": one_of("auto", True, False),
    "trainer.accelerator": ACCELERATOR,
    "trainer.devices": either(one_of("auto"), integer(1), list_of(integer(0))),
    "trainer.num_nodes": integer(1),
    "trainer.strategy": one_of("auto", "ddp", "sharded"),
    "trainer.val_every": integer(1),
    "trainer.val_samples": integer(1),
    "trainer.checkpoint_every": integer(1),
    "trainer.log_every": integer(1),
    "optimizer.lr": POSITIVE,
    "optimizer.betas": Limit(
        "two numbers in [0, 1)", lambda x: list_of(BELOW_ONE).holds(x) and len(x) == 2, list_of(BELOW_ONE).form
    ),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.dampening": BELOW_ONE,
    "optimizer.nesterov": FLAG,
    "optimizer.momentum_decay": NOT_NEGATIVE,
    "optimizer.decoupled_weight_decay": FLAG,
    "optimizer.ns_steps": integer(1),
    "optimizer.warmup_steps": integer(0),
    "optimizer.decay_to": SHARE,
    "ema.every": integer(1),
    "ema.decay": BELOW_ONE,
    "ema.bias_correction": FLAG,
    "evaluation.samples": integer(2),
    "evaluation.batch_size": integer(1),
    "evaluation.reference": integer(2),
    "evaluation.seed": integer(0),
    "evaluation.grid": integer(1),
    "evaluation.weights": list_of(one_of("ema", "raw", "init")),
    "evaluation.settings": SETTINGS,
    "evaluation.grids": either(one_of(None), list_of(one_of(*GRIDS))),
    "halving.images": list_of(integer(1)),
    "halving.eta": integer(2),
    "halving.samples": integer(2),
    "halving.steps": integer(1),
    "halving.guidance": NOT_NEGATIVE,
    "backbone.patch_size": either(one_of(None), integer(1)),
    "backbone.depth": integer(1),
    "backbone.width": either(one_of(None), integer(1)),
    "backbone.heads": either(one_of(None), integer(1)),
    "backbone.qk_norm": FLAG,
    "backbone.split_text": FLAG,
    "backbone.dual_attention": integer(0),
    "autoencoder.factor": integer(1),
    "autoencoder.gain": POSITIVE,
    "autoencoder.spectrum_power": NOT_NEGATIVE,
    "data.source.image_size": either(integer(1), RECTANGLE),
    "data.source.size": integer(1),
    "data.source.seed": integer(0),
    "stack.size": either(one_of("auto"), integer(1)),
    "stack.processes": either(one_of("auto"), integer(1)),
    "data.mean": either(one_of(None), list_of(number("a number", lambda x: True))),
    "data.std": either(one_of(None), list_of(POSITIVE)),
    "data.cache": one_of("device", "none"),
    "data.workers": integer(0),
}

# Where a run goes, as typed. What its folder is called later, once moved, need not follow these.
PLACE_LIMITS = {"sweep": FOLDER_NAME, "runs": Limit("the name of a folder", NAME.holds)}

# What evaluation and sampling are told beside the config of their run.
OPTION_LIMITS: dict[str, Limit] = {
    "checkpoint": one_of("best", "last"),
    "n": integer(1),
    "steps": integer(1),
    "guidance": NOT_NEGATIVE,
    "interval": either(one_of(None), INTERVAL),
    "batch_size": integer(1),
    "weights": one_of("ema", "raw"),
    "seed": integer(0),
    "fresh": FLAG,
    "format": one_of("diffusers", "safetensors"),
}


def check_limits(values: Mapping[str, Any], limits: Mapping[str, Limit]) -> None:
    """Raises ValueError at the first value outside its limit."""
    for key, limit in limits.items():
        value: Any = values
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
        else:
            if not limit.holds(value):
                raise ValueError(f"{key}={spelled(value)}: allowed is {limit.allowed}")
