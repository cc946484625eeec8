"""Whether the classes that a config names take what they are given, and can do what is asked of them."""

from collections.abc import Iterator, Mapping
from inspect import Signature, signature
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from flowzoo.runs.hydras import locate
from flowzoo.runs.keys import BESIDE
from flowzoo.runs.limits import spelled
from flowzoo.runs.store import RunError, explained
from flowzoo.signatures import signature_of

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

    Classes from outside the package know their own limits: they are imported, and a formulation of them is built.
    """
    outside = False
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
        _check_parameters(place, part, takes)
        outside |= not ours and place.split(".")[0] in ("path", "sampler", "weighting", "solver")
    if outside:
        _try_formulation(OmegaConf.create(dict(values)))


def _located(place: str, target: str) -> Any:
    try:
        return locate(target)
    except Exception as error:
        raise ValueError(
            f"it cannot be imported ({error.__cause__ or error}); allowed is a class that Python finds, for instance "
            "with its folder in PYTHONPATH"
        ) from error


def _check_parameters(place: str, part: Mapping[str, Any], takes: Signature) -> None:
    target = part["_target_"]
    given = [str(key) for key in part if not str(key).startswith("_") and key not in BESIDE.get(place, ())]
    supplied = SUPPLIED.get(place, ())
    for name in given:
        if name in supplied:
            raise ValueError(f"{place}.{name}: it is not given but found out; allowed are other parameters of {target}")
    known = takes.parameters.values()
    keywords = [p.name for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    anything = any(p.kind is p.VAR_KEYWORD for p in known)
    allowed = ", ".join(name for name in keywords if name not in supplied) or "none"
    for name in [*given, *supplied]:
        if name not in keywords and not anything:
            raise ValueError(f"{place}.{name}: {target} has no such parameter; allowed are {allowed}")
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


def _try_formulation(cfg: DictConfig) -> None:
    """Draws times and takes two steps, so that a law, rule or grid that does not fit is refused now."""
    import torch
    from hydra.utils import instantiate

    from flowzoo.build import formulation_of

    try:
        white = {"deviation": 1.0, "spectrum": {"centres": [0.0], "masses": [1.0]}}
        formulation = formulation_of(cfg, white)
        formulation.density(formulation.coefficients(torch.tensor([0.25, 0.75])).t)
        instantiate(cfg.solver).sample(lambda z, c: torch.zeros_like(z), formulation, torch.ones(1, 1), steps=2)
    except (InstantiationException, TypeError) as error:
        raise ValueError(str(explained(error))) from error


def check_optimizer(cfg: DictConfig) -> None:
    """Raises RunError for an optimiser of one's own: the run would be trained by another in silence."""
    target = str(cfg.optimizer.get("_target_"))
    if not target.startswith("flowzoo."):
        from flowzoo.training.optimizer import is_ours, not_ours

        if not is_ours(_located("optimizer", target)):
            raise RunError(not_ours(target))


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
