"""How one part is spelt in names, and read from them."""

import re
from collections.abc import Mapping
from typing import Any

from flowzoo.formulation.declared import Config, Declared, known, target_of

NUMBER = r"-?\d[\d.]*(?:e[+-]?\d+)?"


def number(value: float) -> str:
    """Two decimals, or as many digits as the value needs."""
    short = f"{value + 0.0:.2f}"  # + 0.0: one name for 0 and -0
    return short if float(short) == value else repr(float(value))


def words(config: Config, kind: Mapping[str, Declared]) -> tuple[str, list[str]]:
    """The word of a part and its arguments as printed; a part from outside has its class and all of its parameters."""
    values = {key: value for key, value in config.items() if not key.startswith("_")}
    own = known(config, kind)
    if own is None:
        return target_of(config).rpartition(".")[2], [f"{key}={_shown(values[key])}" for key in sorted(values)]
    values = {**own.defaults, **values}
    plain = [_printed(values[key], own.rounded.get(key, ())) for key in own.ranges if key not in own.named]
    return own.word, plain + [
        f"{key}={_shown(values[key])}" for key, usual in own.named.items() if values[key] != usual
    ]


def call(word: str, arguments: list[str]) -> str:
    return f"{word}({','.join(arguments)})" if arguments else word


def file_name(name: str) -> str:
    """`rf/lognorm(0.00,1.00)` -> `rf_lognorm_0.00_1.00`; one to one for this package's parts, and idempotent."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", name.replace("sigma_data=", "sd-").replace("=", "-")).strip("_")


def pattern(one: Declared) -> str:
    """What a part may look like in a file name."""
    return _pattern(one, "(?:{expression})")


def read(text: str, kind: Mapping[str, Declared]) -> dict[str, Any]:
    """The config of the part that stands in a file name. Raises ValueError where it matches none of them."""
    for one in kind.values():
        if found := re.fullmatch(_pattern(one, "(?P<{key}>{expression})"), text):
            told = {key: _value(one, key, text) for key, text in found.groupdict().items() if text is not None}
            return one.config(*({**one.named, **told}[key] for key in one.ranges))
    raise ValueError(f"{text!r} is the name of none of {', '.join(one.word for one in kind.values())}")


def _pattern(one: Declared, group: str) -> str:
    value = {key: rf"{NUMBER}|{limits.word}" if limits.word else NUMBER for key, limits in one.ranges.items()}
    value = {key: group.format(key=key, expression=expression) for key, expression in value.items()}
    plain = [f"_{text}" for key, text in value.items() if key not in one.named]
    told = [f"(?:_{file_name(f'{key}=')}{text})?" for key, text in value.items() if key in one.named]
    return "".join([re.escape(one.word), *plain, *told])


def _value(one: Declared, key: str, text: str) -> float | str:
    if text == one.ranges[key].word:
        return text
    return {f"{x:.2f}": x for x in one.rounded.get(key, ())}.get(text, float(text))


def _printed(value: float, rounded: tuple[float, ...]) -> str:
    """Numbers that are printed rounded keep their two decimals, so 0.83 itself is 0.830."""
    if value in rounded:
        return f"{value:.2f}"
    return f"{value:.3f}" if number(value) in {f"{x:.2f}" for x in rounded} else number(value)


def _shown(value: object) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
