"""A sweep file: which variants, data sets, backbones and seeds are crossed, and what all of them have in common."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from flowzoo.formulation import names
from flowzoo.runs.text import holds_texts, is_text
from flowzoo.runs.yamlfile import read_yaml

HERE = Path(__file__).parent


ENGINES = ("solo", "stacked")


@dataclass(frozen=True)
class Sweep:
    """What is crossed. `variants` holds printed names; a number of `seeds` is that many, from 0.

    `cross` holds further keys with their values. `overrides` are words of flowzoo.train's command line, common to all.
    """

    name: str
    variants: Sequence[str]
    data: Sequence[str] = ("shapes",)
    backbones: Sequence[str] = ("mmdit",)
    seeds: int | Sequence[int] = (0,)
    cross: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    overrides: Sequence[str] = field(default=())

    def command(self, extra: Sequence[str] = ()) -> list[str]:
        """The overrides of one Hydra multirun; `extra` come last and win. All variants of one seed come first.

        Raises ValueError for an impossible `seeds=` or `engine=`.
        """
        from flowzoo.runs.parse import quoted  # Hydra, which naming a sweep does not need

        crossed = {
            "sweep": [quoted(self.name)],
            "seed": _seeds(self.seeds),
            "data": self.data,
            "backbone": self.backbones,
            **{key: [_word(key, value, quoted) for value in values] for key, values in self.cross.items()},
            "variant": [names.file_name(name) for name in self.variants],
        }
        words = [f"{key}={','.join(values)}" for key, values in crossed.items()]
        return words + [translated(word) for word in (*self.overrides, *extra)]


def translated(word: str) -> str:
    """A sweep's own word in those of flowzoo.train: its engine is the trainer of its runs, `seeds=3` is seed=0,1,2.

    Raises ValueError.
    """
    key, _, value = word.partition("=")
    if key == "engine":
        if value not in ENGINES:
            raise ValueError(f"{word}: allowed are {', '.join(ENGINES)}")
        return f"trainer={value}"
    if key == "seeds":
        try:
            return f"seed={','.join(_seeds(read_yaml(value)))}"
        except (ValueError, yaml.YAMLError):
            raise ValueError(f"{word}: {SEEDS}") from None
    return word


SEEDS = "allowed are a number of at least 1, for that many, and a list of seeds, e.g. [0, 5]"


def _seeds(seeds: Any) -> list[str]:
    """Raises ValueError for what `SEEDS` does not allow."""
    listed = list(range(seeds)) if type(seeds) is int else seeds
    if not isinstance(listed, list | tuple) or not listed or any(type(s) is not int or s < 0 for s in listed):
        raise ValueError(f"seeds={seeds}: {SEEDS}")
    return list(map(str, listed))


def _word(key: str, value: Any, quoted: Callable[[str], str]) -> str:
    """A value of a YAML file as a word of a command: null, true, 0.5, [1,2], text; `quoted` where it is text alone."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(_word(key, child, quoted) for child in value)}]"
    if isinstance(value, dict):
        pairs = ((_KEY_ESCAPED.sub(r"\\\g<0>", str(name)), _word(key, child, quoted)) for name, child in value.items())
        return f"{{{','.join(f'{name}:{word}' for name, word in pairs)}}}"
    if isinstance(value, str):
        return quoted(value) if is_text(key) or holds_texts(key) else value
    return str(value).lower() if isinstance(value, bool) else str(value)


_KEY_ESCAPED = re.compile(r"[\\()\[\]{}:=, \t]")  # keys of mappings cannot be quoted in Hydra's grammar


def _is_text(key: str) -> bool:
    """Whether what a sweep or study file has at a dotted key is text."""
    if key.startswith("cross."):
        return is_text(key.removeprefix("cross.")) or holds_texts(key.removeprefix("cross."))
    return key in ("variants", "data", "backbones", "overrides", "storage", "sampler")


def content_of(what: str, name: str, folder: Path, kind: type, needed: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """The file of that name in `folder`, or that YAML file, with the fields of the dataclass `kind` but its name.

    Raises ValueError for an unknown name or key, and where one of `needed` is missing.
    """
    known = names_in(folder)
    path = folder / f"{name}.yaml" if name in known else Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ValueError(f"{what} {name}: allowed are {', '.join(known)}, or a YAML file")
    try:
        content = read_yaml(path.read_bytes(), _is_text)
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    allowed = [f.name for f in fields(kind) if f.name != "name"]
    if not isinstance(content, dict) or any(key not in content for key in needed):
        required = f"{', '.join(needed)} {'is' if len(needed) == 1 else 'are'} required"
        raise ValueError(f"{path}: allowed are the keys {', '.join(allowed)}, of which {required}")
    if unknown := [key for key in content if key not in allowed]:
        raise ValueError(f"{path}: key {', '.join(map(str, unknown))}: allowed are {', '.join(allowed)}")
    return path, content


def names_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def sweep_names() -> list[str]:
    return names_in(HERE)


def load(sweep: str) -> Sweep:
    """The sweep of that name, or of that YAML file. Raises ValueError for an unknown sweep, key or variant."""
    path, content = content_of("sweep", sweep, HERE, Sweep, ("variants",))
    cross = content.get("cross", {})
    if not isinstance(cross, dict):
        raise ValueError(f"{path}: cross={cross}: allowed are keys, each with a list of values")
    lists = {key: value for key, value in content.items() if key not in ("cross", "seeds")}
    for key, value in (lists | {f"cross.{key}": value for key, value in cross.items()}).items():
        if not (isinstance(value, list) and value) and (key, value) not in (("variants", "all"), ("overrides", [])):
            raise ValueError(f"{path}: {key}={value}: allowed is a list")
    if content["variants"] == "all":
        content["variants"] = list(names.TABLE)
    for key in ("variants", "data", "backbones", "overrides"):
        if others := [value for value in content.get(key, []) if not isinstance(value, str)]:
            raise ValueError(f"{path}: {key}: {others[0]!r}: allowed is a list of texts")
    printed = {name: names.of_a_kind(name) for name in content["variants"]}
    if unknown := [name for name, found in printed.items() if not found]:
        raise ValueError(
            f"{path}: variant {', '.join(map(repr, unknown))}: allowed are the paper's 61, rf/spectrum, and "
            f"theirs with other numbers; {names.suggestion(unknown[0])}"
        )
    content["variants"] = [printed[name] for name in content["variants"]]
    try:
        _seeds(content.get("seeds", 1))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Sweep(name=path.stem, **content)
