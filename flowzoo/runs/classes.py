"""Whether the classes that a config names take what they are given, and can do what is asked of them."""

from collections.abc import Iterator, Mapping
from inspect import Signature, signature
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig

from flowzoo.runs.hydras import locate
from flowzoo.runs.keys import BESIDE
from flowzoo.runs.limits import spelled
from flowzoo.runs.store import RunError
from flowzoo.signatures import signature_of

# Of our own classes those that are tried, too, since they do not go with everything.
TRIED = ("flowzoo.training.optimizer.Muon",)

# What a part gets beside its config, where it is built.
SUPPLIED: dict[str, tuple[str, ...]] = {
    "backbone": ("channels", "size", "text"),
    "data.source": ("split",),
    "autoencoder": ("image_channels",),
    "loss": ("perceptual",),
    "critic": ("image_channels",),
}


def check_classes(values: Mapping[str, Any]) -> None:
    """Refuses parameters that a class does not take, and lacks those that it needs.

    Classes from outside the package know their own limits: they are imported, made and tried.
    """
    outside: dict[str, str] = {}
    for place, part in _parts(values):
        target = part["_target_"]
        if not isinstance(target, str):
            raise ValueError(f"{place}._target_={spelled(target)}: allowed is the name of a class")
        if target.startswith("lightning."):  # known to exist, and imported only to log
            continue
        ours = target.startswith("flowzoo.")
        try:
            takes = signature_of(target) if ours else signature(_located(place, target))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {target}: {error}") from error
        _check_parameters(place, part, takes, _supplied(place, target))
        if not ours or target in TRIED:
            outside[place] = target
    if outside:
        from flowzoo.trial import try_parts

        try_parts(values, outside)


def _located(place: str, target: str) -> Any:
    try:
        return locate(target)
    except Exception as error:
        raise ValueError(
            f"it cannot be imported ({error.__cause__ or error}); allowed is a class that Python finds, for instance "
            "with its folder in PYTHONPATH"
        ) from error


def _supplied(place: str, target: str) -> tuple[str, ...]:
    """What a part gets beside its config; of optimisers those of torch get the weights."""
    if place != "optimizer" or target.startswith("flowzoo."):
        return SUPPLIED.get(place, ())
    from torch.optim import Optimizer

    kind = _located(place, target)
    return ("params",) if isinstance(kind, type) and issubclass(kind, Optimizer) else ()


def _check_parameters(place: str, part: Mapping[str, Any], takes: Signature, supplied: tuple[str, ...]) -> None:
    target = part["_target_"]
    given = [str(key) for key in part if not str(key).startswith("_") and key not in BESIDE.get(place, ())]
    for name in given:
        if name in supplied:
            raise ValueError(f"{place}.{name}: it is not given but found out; allowed are other parameters of {target}")
    known = takes.parameters.values()
    keywords = [p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    anything = any(p.kind is p.VAR_KEYWORD for p in known)
    allowed = ", ".join(name for name in keywords if name not in supplied) or "none"
    for name in [*given, *supplied]:
        if name not in keywords and not anything:
            # of a null Hydra says that it is not there
            without = f" (~{place}.{name} leaves it out)" if part.get(name) is not None else ""
            raise ValueError(f"{place}.{name}: {target} has no such parameter; allowed are {allowed}{without}")
    if part.get("_partial_") or "_args_" in part:
        return
    for p in known:
        if p.name in keywords and p.default is p.empty and p.name not in (*given, *supplied):
            raise ValueError(f"{place}.{p.name} is missing: {target} needs it; give {place}.{p.name}=...")


def _parts(node: Any, place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every node of a config that names a class, with its place."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield place, node
        for key, value in node.items():
            yield from _parts(value, f"{place}.{key}" if place else str(key))


def check_callbacks(cfg: DictConfig) -> None:
    """Raises RunError for a callback that could not do its work, and makes each once, so that its class may refuse."""
    if not cfg.get("callbacks"):
        return
    from hydra.utils import instantiate

    from flowzoo.training.callbacks import check_callback, check_together

    made = {}
    for name, part in cfg.callbacks.items():
        try:
            check_callback(str(name), _located(f"callbacks.{name}", str(part["_target_"])))
            made[str(name)] = instantiate(part)
        except InstantiationException as error:
            raise RunError(f"callbacks.{name}: {error.__cause__ or error}") from error
        except ValueError as error:
            raise RunError(str(error)) from error
    try:
        check_together(made)
    except ValueError as error:
        raise RunError(str(error)) from None
