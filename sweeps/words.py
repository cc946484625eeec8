"""The words of a command: those that say what is planned, and those that say only how it is executed."""

from collections.abc import Sequence
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowzoo.runs.config import config_loader
from sweeps.definition import translated

# What can change neither a weight nor a score.
EXECUTION = (
    *("engine", "stack", "logger", "trainer.accelerator", "trainer.strategy", "trainer.compile", "trainer.progress"),
    *("trainer.log_every", "trainer.checkpoint_every", "data.cache", "data.workers"),
)


def is_execution(key: str) -> bool:
    return any(key == name or key.startswith(name + ".") for name in EXECUTION)


def key_of(word: str) -> str:
    """`trainer.steps` of `trainer.steps=3`, `logger` of `+logger.x=1`."""
    return word.split("=", 1)[0].lstrip("+~").split("@")[0].replace("/", ".")


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
    parsed = OverridesParser.create().parse_overrides([translated(word) for word in words])
    for override in parsed:
        if override.is_sweep_override() or override.is_add() or override.is_force_add() or override.is_delete():
            raise ValueError(f"{override.input_line}: allowed is key=value with one value")
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
