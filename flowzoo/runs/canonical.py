"""The form in which a config stands in config.yaml and in plans: all that compute the same are written alike."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowzoo.formulation import declared
from flowzoo.runs.identity import CONTENT, content_of
from flowzoo.runs.limits import LIMITS, POSITIVE, Limit

FORMULATION = ("path", "sampler", "weighting")  # what a formulation is in a config
FORMS: dict[str, Limit] = {**LIMITS, "solver.shift": POSITIVE}


def canonical(cfg: DictConfig) -> DictConfig:
    """A composed config with numbers of the type that their readers expect, the simplest formulation that it equals,
    and the content of the weights that it names. What cannot be resolved or is not allowed stays for `check`.
    """
    rest = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ("logger", "hydra")])
    try:
        resolved: Any = OmegaConf.to_container(rest, resolve=True)
    except OmegaConfBaseException:
        return cfg
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    changed = OmegaConf.create(_written(raw, resolved))
    OmegaConf.set_struct(changed, True)
    return changed


def canonical_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """As `canonical`, of a config that is resolved."""
    return _written(values, values)


def _written(raw: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` may hold interpolations, which stay."""
    out: Any = raw
    for key, limit in FORMS.items():
        out = _replaced(out, key.split("."), partial(_formed, limit))
    parts = {key: _floats(resolved[key]) for key in FORMULATION if key in resolved}
    simple = declared.simplest(parts)
    for key in parts:
        if key not in simple:
            out = {name: value for name, value in out.items() if name != key}
        elif simple[key] is parts[key]:
            out = {**out, key: _floats(out[key])}
        elif key == "path":
            kept = {name: value for name, value in out[key].items() if name != "loss"}
            out = {**out, key: _floats(kept | {name: simple[key][name] for name in ("loss",) if name in simple[key]})}
        else:
            out = {**out, key: dict(simple[key])}
    content = resolved.get(CONTENT) or content_of(resolved)
    return {**out, CONTENT: content} if content else dict(out)


def _formed(limit: Limit, value: Any) -> Any:
    return limit.form(value) if limit.holds(value) else value


def _replaced(node: Any, keys: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """A copy of a tree with one leaf changed; the tree itself where it has no such leaf."""
    if not isinstance(node, Mapping) or keys[0] not in node:
        return node
    value = node[keys[0]]
    return {**node, keys[0]: _replaced(value, keys[1:], change) if keys[1:] else change(value)}


def _floats(part: Any) -> Any:
    """Every parameter of a formulation's parts that is a number is real, where the part is one of ours."""
    if not isinstance(part, Mapping):
        return part
    ours = declared.own_class(str(part.get("_target_"))) is not None
    return {k: float(v) + 0.0 if ours and type(v) in (int, float) else _floats(v) for k, v in part.items()}
