"""Which runs can be trained as one stack, and how many stacks they make."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowzoo.runs.identity import comparable

# What may differ between the variants of a stack; the name of the option says the same as path and sampler.
FREE = ("path", "sampler", "weighting", "seed", "optimizer.lr", "optimizer.weight_decay", "sigma_data")


def is_stacked(cfg: DictConfig | Mapping[str, Any]) -> bool:
    """Whether the config asks for `trainer=stacked`."""
    return cfg.get("stack") is not None


def alone(cfg: DictConfig) -> DictConfig:
    """The config of the run itself: how it is trained together with others is no part of it."""
    own = cfg.copy()
    OmegaConf.set_struct(own, False)
    own.pop("stack", None)
    OmegaConf.set_struct(own, True)
    return own


def check_stack(values: Mapping[str, Any]) -> None:
    """Raises ValueError for a config that cannot be trained in a stack."""
    trainer, processes = values["trainer"], values["stack"]["processes"]
    devices, nodes = trainer["devices"], trainer["num_nodes"]
    if (devices, nodes) != (1, 1) and processes not in (1, "auto"):
        raise ValueError(
            f"stack.processes={processes} with trainer.devices={devices} and trainer.num_nodes={nodes}: allowed is "
            "auto; variants are dealt to processes, or several processes train each stack together"
        )


def grouped(cfgs: Sequence[DictConfig]) -> list[list[DictConfig]]:
    """The runs in groups that differ in `FREE` alone, in the order of their first."""
    groups: dict[str, list[DictConfig]] = {}
    for cfg in cfgs:
        groups.setdefault(_kind(cfg), []).append(cfg)
    return list(groups.values())


def _kind(cfg: DictConfig) -> str:
    # The logger's config names its run, so it is compared as it was written.
    logger = OmegaConf.to_container(cfg.logger) if cfg.get("logger") else None
    rest = comparable(cfg)
    for key in FREE:
        group, _, name = key.rpartition(".")
        (rest[group] if group else rest).pop(name, None)
    return json.dumps([rest, logger], sort_keys=True, default=str)


def split(n: int, limit: int) -> list[int]:
    """Sizes of the fewest stacks of at most `limit` that hold n variants, as equal as can be, the larger first."""
    return evenly(n, -(-n // limit))


def evenly(n: int, parts: int) -> list[int]:
    """Sizes of so many parts of n, as equal as can be, the larger first."""
    return [n // parts + (i < n % parts) for i in range(parts)]


def dealt(cfgs: Sequence[DictConfig], parts: int) -> list[list[DictConfig]]:
    """The runs in so many parts of equal size, those of a group side by side."""
    together = [cfg for group in grouped(cfgs) for cfg in group]
    return cut(together, evenly(len(together), parts))


def cut(cfgs: Sequence[DictConfig], sizes: Sequence[int]) -> list[list[DictConfig]]:
    """The runs in pieces of these sizes, in order."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(list(cfgs[start : start + size]))
        start += size
    return pieces
