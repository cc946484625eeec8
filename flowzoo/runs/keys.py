"""Which keys a config may have: those that conf/ composes. What has no class to say so is refused here by name."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from flowzoo.paths import conf
from flowzoo.runs.identity import CONTENT

# Keys of a part that its class does not take: they are for whoever builds it.
BESIDE: Mapping[str, tuple[str, ...]] = {
    "backbone": ("name",),
    "autoencoder": ("gain", "spectrum_power"),
    "critic": ("weight", "start"),
    "optimizer": ("warmup_steps", "decay_to", "rate"),
}

# Groups that hold parts by a name of whoever writes them.
NAMED = ("metric", "callbacks")

_GLOBAL = "# @package _global_"


def check_keys(values: Mapping[str, Any], command: str = "train") -> None:
    """Raises ValueError for a key that nothing reads, at the top or in a group whose options name no class.

    `command` is that of flowzoo whose config it is.
    A part with a class is not looked into: the parameters of its class say what it may have.
    """
    _check(values, known_keys(command), "")


def _check(node: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
    for key, value in node.items():
        at = f"{place}.{key}" if place else str(key)
        if key not in known:
            allowed = ", ".join(f"{place}.{name}" if place else name for name in sorted(known)) or f"no key of {place}"
            raise ValueError(f"{at}={value}: nothing reads {at}; allowed: {allowed}")
        inside = known[key]
        if isinstance(value, Mapping) and "_target_" not in value and inside is not None:
            _check(value, inside, at)


@cache
def known_keys(command: str = "train") -> Mapping[str, Any]:
    """The tree of keys that the options of all groups of flowzoo.<command> give, and the content that is added to it.

    None stands for a value, and for a part that names its class.
    """
    known: dict[str, Any] = {CONTENT: None}
    root = conf()
    whole = _loaded(root / f"{command}.yaml")
    groups = [key.split("@")[0] for entry in whole["defaults"] if isinstance(entry, dict) for key in entry]
    _add(known, {key: value for key, value in whole.items() if key not in ("defaults", "hydra")})
    known |= dict.fromkeys(NAMED)
    for group in (group for group in groups if group not in NAMED):
        for file in sorted((root / group).glob("**/*.yaml")):
            content = _loaded(file)
            content.pop("defaults", None)
            if file.read_text().startswith(_GLOBAL):
                _add(known, content)
            else:
                for name in reversed(file.parent.relative_to(root).parts):
                    content = {name: content}
                _add(known, content)
    return known


def _loaded(file: Path) -> dict[str, Any]:
    content = yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content if isinstance(content, dict) else {}


def _add(known: dict[str, Any], content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        known.setdefault(str(key), None)
        if isinstance(value, Mapping) and "_target_" not in value:
            known[str(key)] = known[str(key)] or {}
            _add(known[str(key)], value)
