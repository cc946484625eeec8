"""The words of a command: those that say what is planned, and those that say only how it is executed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowzoo.paths import user_path
from flowzoo.runs.config import config_loader
from flowzoo.runs.limits import PLACE_LIMITS, check_limits
from flowzoo.runs.parse import how_to_quote, parse, single
from flowzoo.runs.text import key_of
from sweeps.definition import translated

# What can change neither a weight nor a score.
EXECUTION = (
    *("engine", "stack", "logger", "callbacks", "trainer.accelerator", "trainer.strategy", "trainer.compile"),
    "trainer.accumulate",
    *("trainer.log_every", "trainer.checkpoint_every", "data.cache", "data.workers"),
)


def is_execution(key: str) -> bool:
    return any(key == name or key.startswith(name + ".") for name in EXECUTION)


def place(name: str, words: Sequence[str]) -> Path:
    """The folder of the runs of a sweep or study: as `runs=` and `sweep=` among the words say, and by its name.

    Raises ValueError for several values, and for a name that no folder may have.
    """
    given: dict[str, Any] = {"runs": "runs", "sweep": name}
    for override in parse([word for word in words if key_of(word) in given]):
        if override.is_sweep_override():
            word = str(override.input_line)
            raise ValueError(f"{word}: these are several folders; allowed is one folder; {how_to_quote(word)}")
        given[override.key_or_group] = override.value()
    check_limits(given, {key: PLACE_LIMITS[key] for key in given})
    return user_path(given["runs"]) / given["sweep"]


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words that say what is planned, and words of execution."""
    return [w for w in words if not is_execution(key_of(w))], [w for w in words if is_execution(key_of(w))]


def execute(cfgs: Sequence[DictConfig], words: Sequence[str]) -> list[DictConfig]:
    """The configs of planned runs with words of execution applied; stacked ones have the section `stack`.

    Raises ValueError for a word that changes more, and Hydra's own errors.
    """
    planning, words = split(words)
    if planning:
        raise ValueError(
            f"{planning[0]} changes what is planned: allowed are {', '.join(EXECUTION)}, "
            "or python -m sweeps plan SWEEP ... --replace"
        )
    parsed = single([translated(word) for word in words])
    if not parsed:
        return list(cfgs)
    with config_loader() as loader:
        groups = [o for o in parsed if loader.get_group_options(o.key_or_group, ObjectType.CONFIG)]
        stack = [str(o.input_line) for o in parsed if o.key_or_group.startswith("stack.")]
        chosen = loader.load_configuration("train", [*(str(o.input_line) for o in groups), *stack], RunMode.RUN)
    nodes: dict[str, Any] = {o.key_or_group: chosen.get(o.key_or_group) for o in groups if o.key_or_group != "trainer"}
    if "stack" in chosen:
        nodes["stack"] = chosen.stack
    values = {o.key_or_group: o.value() for o in parsed if o not in groups and not o.key_or_group.startswith("stack.")}
    return [_changed(cfg, nodes, values) for cfg in cfgs]


def _changed(cfg: DictConfig, nodes: dict[str, Any], values: dict[str, Any]) -> DictConfig:
    cfg = cfg.copy()
    for key, node in nodes.items():
        OmegaConf.update(cfg, key, node, merge=False, force_add=True)
    for key, value in values.items():
        try:
            OmegaConf.update(cfg, key, value, merge=False)
        except OmegaConfBaseException as error:
            raise ValueError(f"{key}={value}: {str(error).splitlines()[0]}") from None
    return cfg
