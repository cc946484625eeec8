"""Numbers and config values as people write them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def number(value: float | None) -> str:
    """As many digits as a score deserves: 1,204, 49.7, 4.97, 0.250."""
    if value is None:
        return ""
    size = abs(value)
    return f"{value:,.{0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3}f}"


def spread(mean: float | None, se: float | None) -> str:
    """A mean with its standard error, which deserves one digit."""
    if mean is None or se is None:
        return number(mean)
    error = number(se) if se >= 10 else f"{se:.4f}" if se < 0.001 else f"{se:.1g}"
    told, digits = number(mean), len(error.partition(".")[2])
    return f"{told if digits <= len(told.partition('.')[2]) else f'{mean:,.{digits}f}'} ± {error}"


def telling(columns: Iterable[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The first columns that tell these rows apart as far as all of them do, each telling more than those before it."""

    def count(names: Sequence[str]) -> int:
        return len({tuple(row.get(name, "") for name in names) for row in rows})

    told: list[str] = []
    for column in columns:
        if count([*told, column]) > count(told):
            told.append(column)
    return told


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """A dotted key of nested mappings; None where it is absent."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def flatten(tree: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys."""
    if not isinstance(tree, Mapping):
        return {prefix: say(tree)}
    return {
        k: v for key, sub in tree.items() for k, v in flatten(sub, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def say(value: Any) -> str:
    """A config value in a few words: an object by its class and plain arguments."""
    if isinstance(value, Mapping):
        scalars = ", ".join(
            f"{k} {say(v)}"
            for k, v in value.items()
            if not str(k).startswith("_") and not isinstance(v, Mapping | list)
        )
        parts = ", ".join(f"{k}: {say(v)}" for k, v in value.items() if isinstance(v, Mapping))
        name = str(value.get("_target_", "")).rsplit(".", 1)[-1]
        inner = ", ".join(filter(None, [scalars, parts]))
        return f"{name} ({inner})" if name and inner else name or inner
    if isinstance(value, list):
        return ", ".join(map(say, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
