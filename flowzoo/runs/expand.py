"""The jobs of a multirun, exactly as Hydra composes them one by one, in a fraction of the time.

Jobs that differ in plain values alone (a seed, the numbers of an option) are composed once, with a placeholder in place
of each value, and filled in. Hydra decides where a value ends up; what it never does is to look at one while it
composes. Where that cannot be said of a command, its jobs are composed one by one.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict
from omegaconf.errors import OmegaConfBaseException

from flowzoo.runs.canonical import canonical, canonical_values
from flowzoo.runs.hydras import Repository, repository_of
from flowzoo.runs.parse import parse


class Template:
    """A composed config with placeholders, and the option of the group `variant` that it was composed with."""

    def __init__(self, cfg: DictConfig) -> None:
        self.variant: str | None = cfg.hydra.runtime.choices.get("variant")
        with open_dict(cfg):
            del cfg["hydra"]
        self.cfg = cfg

    @cached_property
    def raw(self) -> dict[str, Any]:
        return _container(self.cfg, resolve=False)

    @cached_property
    def resolved(self) -> dict[str, Any] | None:
        """Resolved but for the logger, which asks for its run; None where a filled-in value could be part of a text."""
        rest = {key: value for key, value in self.raw.items() if key != "logger"}
        if all(_PURE.fullmatch(text) for text in _texts(rest) if "${" in text):
            return _resolved(self.cfg)
        return None


class Composed:
    """The config of one job, in canonical form."""

    def __init__(self, template: Template, values: Mapping[str, Any]) -> None:
        self.template, self.values = template, values

    @property
    def cfg(self) -> DictConfig:
        if not self.values:
            return canonical(self.template.cfg)
        cfg = OmegaConf.create(_filled(self.template.raw, self.values))
        OmegaConf.set_struct(cfg, True)
        return canonical(cfg)

    @property
    def resolved(self) -> dict[str, Any]:
        """The config as plain values, resolved but for the logger. Raises OmegaConf's errors."""
        if self.template.resolved is None:
            return _resolved(self.cfg)
        return canonical_values(_filled(self.template.resolved, self.values))


def compose_one(loader: ConfigLoader, config_name: str, words: Sequence[str]) -> Composed:
    return Composed(Template(loader.load_configuration(config_name, list(words), RunMode.RUN)), {})


def compose_batch(
    loader: ConfigLoader, config_name: str, always: Sequence[str], batch: Sequence[Sequence[str]]
) -> list[Composed]:
    """A job for each list of words in `batch`; `always` are words of them all. Raises Hydra's errors."""
    try:
        jobs = _expanded(loader, config_name, always, batch)
    except (OmegaConfBaseException, HydraException):  # a typed node, or a mistake, which is to be told as it was made
        jobs = None
    return jobs or [compose_one(loader, config_name, [*always, *words]) for words in batch]


def _expanded(
    loader: ConfigLoader, config_name: str, always: Sequence[str], batch: Sequence[Sequence[str]]
) -> list[Composed] | None:
    repository = repository_of(loader)
    axes = [_Axis(repository, position, words) for position, words in enumerate(zip(*batch, strict=True))]
    templates: dict[tuple[str, ...], Template] = {}
    jobs = []
    for words in batch:
        chosen = [axis.of[word] for axis, word in zip(axes, words, strict=True)]
        key = tuple(word for word, _ in chosen)
        if key not in templates:
            templates[key] = Template(loader.load_configuration(config_name, [*always, *key], RunMode.RUN))
        jobs.append(Composed(templates[key], {name: value for _, values in chosen for name, value in values.items()}))
    loaded = [result for result in repository.known.values() if result is not None]
    if any("${" in repr(default) for result in loaded for default in result.defaults_list or ()):
        return None  # the name of one option then chooses another
    return jobs


class _Axis:
    """The words at one position of all jobs: each with the word that Hydra is given and its placeholders' values."""

    def __init__(self, repository: Repository, position: int, words: Sequence[str]) -> None:
        self.repository, self.mark = repository, f"__axis_{position}"
        self.options: dict[str, str] = {}
        distinct = list(dict.fromkeys(words))
        self.of: dict[str, tuple[str, dict[str, Any]]] = {word: (word, {}) for word in distinct}
        if len(distinct) > 1:
            parsed = parse(distinct)
            group = bool(repository.get_group_options(parsed[0].key_or_group, ObjectType.CONFIG))
            for word, override in zip(distinct, parsed, strict=True):
                self.of[word] = self._option(word, override) if group else self._value(word, override)

    def _value(self, word: str, override: Override) -> tuple[str, dict[str, Any]]:
        value = override.value()
        if not _is_plain(value) or override.is_hydra_override():
            return word, {}
        return word.split("=", 1)[0] + "=" + self.mark, {self.mark: value}

    def _option(self, word: str, override: Override) -> tuple[str, dict[str, Any]]:
        """Options with the same keys and defaults list differ in values alone: one is composed for all of them."""
        path = f"{override.key_or_group}/{override.value()}"
        result = self.repository.load_config(path)
        if result is None or not isinstance(result.config, DictConfig) or result.config._is_none():
            return word, {}
        if not result.is_schema_source and self.repository.get_schema_source().is_config(path):
            return word, {}
        values: dict[str, Any] = {}
        shape = _emptied(result.config, self.mark, values)
        kind = repr((word.split("=", 1)[0], result.provider, result.header, result.defaults_list, shape))
        if kind not in self.options:
            option = f"{self.mark}_{len(self.options)}"
            self.options[kind] = f"{word.split('=', 1)[0]}={option}"
            self.repository.known[f"{override.key_or_group}/{option}"] = result
        return self.options[kind], values


def _emptied(node: DictConfig, place: str, values: dict[str, Any]) -> list[Any]:
    """Puts placeholders into a config, moves their values to `values`, and returns what is left: keys, other values."""
    shape: list[Any] = []
    with flag_override(node, ["readonly", "struct"], False):
        for key, child in list(node.items_ex(resolve=False)):
            name = f"{place}.{key!s}"
            if isinstance(child, DictConfig) and not (child._is_none() or child._is_missing()):
                shape.append((key, _emptied(child, name, values)))
            elif key != "defaults" and _is_plain(value := child):
                shape.append((key,))
                values[name] = value
                node[key] = name
            else:
                shape.append((key, repr(child)))
    return shape


def _is_plain(value: Any) -> bool:
    """Whether a value is merged like any other; None, ??? and interpolations are not."""
    return isinstance(value, bool | int | float) or (isinstance(value, str) and "${" not in value and value != "???")


# Nothing but the value of another key.
_PURE = re.compile(r"\$\{[A-Za-z_][\w.]*\}")


def _texts(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for child in node.values() for text in _texts(child)]
    if isinstance(node, list):
        return [text for child in node for text in _texts(child)]
    return [node] if isinstance(node, str) else []


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(child, values) for key, child in node.items()}
    if isinstance(node, list):
        return [_filled(child, values) for child in node]
    return values.get(node, node) if isinstance(node, str) else node


def _container(cfg: DictConfig, resolve: bool) -> Any:
    return OmegaConf.to_container(cfg, resolve=resolve, throw_on_missing=resolve)


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    rest = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "logger"])
    values = _container(rest, resolve=True)
    return {str(k): _container(cfg, resolve=False)["logger"] if k == "logger" else values[k] for k in cfg}
