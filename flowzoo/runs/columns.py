"""A config as columns of a table: one a leaf, by its dotted key, with cells from which the config can be read back."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowzoo.runs.identity import NOT_IN_HASH, comparable

TOP_LEVEL = ("sigma_data", "captions")  # keys without a dot that are told; metrics have none either
_CLASS = "_target_"  # the key of a part that names its class
PROTOCOL = "protocol."  # begins the columns of what extractor.json says of a row's protocol
# Where a run lies and what looks on; what other columns tell: the variant, the seed, and by their protocol what scores.
_ELSEWHERE = (
    *("runs", "sweep", "hydra", "stack", "logger", "callbacks", "path", "sampler", "weighting", "variant", "seed"),
    *("extractor", "metric", "halving"),
)
# What is no part of a training but how sigma_data and captions are named.
_NOT_TRAINING = tuple(key for key in NOT_IN_HASH if key not in TOP_LEVEL)


def is_key(column: str) -> bool:
    """Whether a column is a key of the config."""
    return (column in TOP_LEVEL or "." in column) and not column.startswith(PROTOCOL)


def is_training(column: str) -> bool:
    """Whether it is a key of the config that says how a run was trained."""
    return is_key(column) and not f"{column}.".startswith(tuple(f"{key}." for key in _NOT_TRAINING))


def config_columns(config: Mapping[str, Any]) -> dict[str, str]:
    """The leaves of a run's config, equal ones written alike, less those that other columns tell."""
    own = comparable(config) if config else {}
    return leaves({key: value for key, value in own.items() if key not in _ELSEWHERE})


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys with cells: text as it is where nothing else reads so, else JSON."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = _cell(value)
    return found


def tree(cells: Mapping[str, str]) -> dict[str, Any]:
    """The other way; an empty cell is an absent key."""
    out: dict[str, Any] = {}
    for key, cell in cells.items():
        *parents, name = key.split(".")
        if cell:
            at = out
            for parent in parents:
                at = at.setdefault(parent, {})
            at[name] = _value(cell)
    return out


def trained_apart(
    configs: Iterable[tuple[tuple[str, ...], Mapping[str, str]]], together: Iterable[str] = ()
) -> list[str]:
    """For each run how it was trained, as far as this tells runs apart that else would be ranked together.

    That is by `keys_apart`; a run without a config says nothing.

    Args:
        configs: of each run its kind, and its config by columns.
        together: keys that may differ all the same.
    """
    configs = list(configs)
    keys = keys_apart(configs, together)
    return [told(keys, cells) for _, cells in configs]


def told(keys: Iterable[str], cells: Mapping[str, str]) -> str:
    """What a config has of these keys, in words."""
    return ", ".join(f"{key}={cells[key]}" for key in keys if key in cells)


def keys_apart(configs: Iterable[tuple[tuple[str, ...], Mapping[str, str]]], together: Iterable[str] = ()) -> list[str]:
    """The keys of training that differ among runs of one kind, in whatever variants and seeds, as `trained_apart`.

    Of keys that are interpolated from one another the shortest. Where parts are of several classes the class is told,
    and what differs among parts of one class.
    """
    runs = [(kind, {key: cell for key, cell in cells.items() if is_training(key)}) for kind, cells in configs]
    kinds: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for kind, cells in runs:
        if cells:
            kinds.setdefault(kind, []).append(cells)
    keys = {key for some in kinds.values() for key in _differing(some)}
    alike: dict[tuple[str | None, ...], list[str]] = {}  # keys that are interpolated from one another
    for key in sorted(keys, key=lambda key: (len(key), key)):
        alike.setdefault(tuple(cells.get(key) for _, cells in runs), []).append(key)
    return sorted(names[0] for names in alike.values() if not set(names) & set(together))


def swept(configs: Sequence[Mapping[str, str]]) -> list[str]:
    """For each run of a sweep, by its config in columns, what it has otherwise than others: `optimizer.lr=0.001`."""
    return trained_apart([((), cells) for cells in configs])


def _differing(some: Sequence[Mapping[str, str]]) -> set[str]:
    """The keys that differ among runs whose parts around the key are of the same classes."""
    found = set()
    for key in {key for cells in some for key in cells}:
        parts = key.split(".")[:-1]
        classes = [".".join([*parts[: i + 1], _CLASS]) for i in range(len(parts))]
        first: dict[tuple[str | None, ...], str | None] = {}
        for cells in some:
            kind = tuple(cells.get(one) for one in classes if one != key)
            if cells.get(key) != first.setdefault(kind, cells.get(key)):
                found.add(key)
    return found


def _cell(value: Any) -> str:
    if isinstance(value, str) and value and _value(value) == value:
        return value
    return json.dumps(value, sort_keys=True)


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell
