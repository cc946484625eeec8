"""The paper's 61 and rf/spectrum, and their kinds with other numbers, as options of Hydra's group `variant`."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore

from flowzoo.formulation.declared import word_of
from flowzoo.formulation.names import VARIANTS, family, of_a_kind, parse
from flowzoo.formulation.spelling import file_name


@cache
def register() -> None:
    """Put them into Hydra's ConfigStore, which is one a process, as options of the group `variant`, by file name."""
    for name, config in VARIANTS.items():
        _store(name, config, file_name(name))


def offer(names: Iterable[str]) -> None:
    """So for those of the names that are of their kinds with other numbers, e.g. `rf_lognorm_2.50_1.40`.

    What an earlier command named is an option no more, so that a glob never finds it.
    """
    group = ConfigStore.instance().repo["variant"]
    for option in _offered:
        group.pop(f"{option}.yaml", None)
    _offered.clear()
    for name in names:
        if f"{name}.yaml" not in group and (printed := of_a_kind(name)):
            _store(printed, parse(printed), name)
            _offered.add(name)


_offered: set[str] = set()


def _store(name: str, config: Mapping[str, Any], option: str) -> None:
    node: dict[str, Any] = {
        "defaults": [
            {"override /path": file_name(family(name.partition("/")[0] if name.startswith("rf") else name))},
            {"override /sampler": word_of(config["sampler"]["_target_"])},
            "_self_",
        ],
        "path": {part: _numbers(config["path"][part]) for part in ("schedule", "target")},
        "sampler": _numbers(config["sampler"]),
    }
    ConfigStore.instance().store(group="variant", name=option, node=node, package="_global_", provider="flowzoo")


def _numbers(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "_target_"}
