"""Refusing a config before anything is written: every message names the value and what is allowed."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from inspect import Signature, signature
from typing import Any, NamedTuple

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from flowzoo.formulation import declared
from flowzoo.formulation.check import check as check_formulation
from flowzoo.formulation.check import check_solver
from flowzoo.network_file import CLIP, DETECTOR, KL, Kind, check_weights, is_hub_name
from flowzoo.paths import user_path
from flowzoo.runs.grouping import check_stack, is_stacked
from flowzoo.runs.hydras import locate
from flowzoo.runs.identity import CONTENT, content_of
from flowzoo.runs.keys import BESIDE, check_keys
from flowzoo.runs.store import RunError, explained
from flowzoo.runs.text import check_text
from flowzoo.signatures import signature_of
from flowzoo.sizes import pair


class Limit(NamedTuple):
    """What is allowed, in words and as a test; `form` gives an allowed value in the type that its reader expects."""

    allowed: str
    holds: Callable[[Any], bool]
    form: Callable[[Any], Any] = lambda x: x


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def integer(least: int) -> Limit:
    return Limit(f"an integer of at least {least}", lambda x: _is_integer(x) and x >= least)


def number(words: str, holds: Callable[[float], bool]) -> Limit:
    return Limit(words, lambda x: _is_number(x) and holds(x), lambda x: float(x) + 0.0)  # one zero, not two


def one_of(*values: Any) -> Limit:
    return Limit(", ".join(map(_shown, values)), lambda x: any(type(x) is type(v) and x == v for v in values))


def either(*limits: Limit) -> Limit:
    return Limit(
        " or ".join(limit.allowed for limit in limits),
        lambda x: any(limit.holds(x) for limit in limits),
        lambda x: next(limit.form(x) for limit in limits if limit.holds(x)),
    )


def list_of(limit: Limit) -> Limit:
    return Limit(
        f"a list, each {limit.allowed}",
        lambda x: isinstance(x, list) and bool(x) and all(map(limit.holds, x)),
        lambda x: list(map(limit.form, x)),
    )


def _shown(value: Any) -> str:
    return "true" if value is True else "false" if value is False else "null" if value is None else str(value)


def _is_setting(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == {"steps", "guidance"}
        and integer(1).holds(value["steps"])
        and NOT_NEGATIVE.holds(value["guidance"])
    )


POSITIVE = number("a number greater than 0", lambda x: x > 0)
NOT_NEGATIVE = number("a number of at least 0", lambda x: x >= 0)
BELOW_ONE = number("a number in [0, 1)", lambda x: 0 <= x < 1)
SHARE = number("a number in [0, 1]", lambda x: 0 <= x <= 1)
FLAG = one_of(True, False)
SETTINGS = list_of(
    Limit(
        "{steps: integer of at least 1, guidance: number of at least 0}",
        _is_setting,
        lambda x: {**x, "guidance": NOT_NEGATIVE.form(x["guidance"])},
    )
)
RECTANGLE = Limit(  # a square has one spelling, as runs are named by their settings
    "[H, W] of two different ones",
    lambda x: list_of(integer(1)).holds(x) and len(x) == len(set(x)) == 2,
)
FOLDER_NAME = Limit(
    "a name of one folder: letters, digits and . _ + -",
    lambda x: isinstance(x, str) and x.strip(".") != "" and all(c.isalnum() or c in "._+-" for c in x),
)
NAME = Limit("a name", lambda x: isinstance(x, str) and x.strip() != "")

# The values that belong to no object with a check of its own. A key that a config lacks is not checked.
LIMITS: dict[str, Limit] = {
    "seed": integer(0),
    "data.name": NAME,
    "sigma_data": either(one_of("data"), POSITIVE),
    "captions": one_of("mix", "terse", "dense"),
    "trainer.steps": integer(1),
    "trainer.batch_size": integer(1),
    # no 16-bit floats: their gradient scaler overflows on purpose, which here is divergence; no weights in bf16 alone,
    # which smaller steps of AdamW do not move
    "trainer.precision": one_of("auto", "32-true", "64-true", "bf16-mixed"),
    "trainer.clip_norm": either(one_of(None), POSITIVE),
    "trainer.compile": one_of("auto", True, False),
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda"),
    "trainer.devices": either(one_of("auto"), integer(1), list_of(integer(0))),
    "trainer.num_nodes": integer(1),
    "trainer.strategy": one_of("auto", "ddp", "sharded"),
    "trainer.val_every": integer(1),
    "trainer.val_samples": integer(1),
    "trainer.checkpoint_every": integer(1),
    "trainer.log_every": integer(1),
    "optimizer.lr": POSITIVE,
    "optimizer.betas": Limit(
        "two numbers in [0, 1)", lambda x: list_of(BELOW_ONE).holds(x) and len(x) == 2, list_of(BELOW_ONE).form
    ),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.warmup_steps": integer(0),
    "optimizer.decay_to": SHARE,
    "ema.every": integer(1),
    "ema.decay": BELOW_ONE,
    "ema.bias_correction": FLAG,
    "evaluation.samples": integer(2),
    "evaluation.batch_size": integer(1),
    "evaluation.reference": integer(2),
    "evaluation.seed": integer(0),
    "evaluation.grid": integer(1),
    "evaluation.weights": list_of(one_of("ema", "raw", "init")),
    "evaluation.settings": SETTINGS,
    "halving.images": list_of(integer(1)),
    "halving.eta": integer(2),
    "halving.samples": integer(2),
    "halving.steps": integer(1),
    "halving.guidance": NOT_NEGATIVE,
    "backbone.patch_size": integer(1),
    "backbone.depth": integer(1),
    "backbone.width": either(one_of(None), integer(1)),
    "backbone.heads": either(one_of(None), integer(1)),
    "backbone.qk_norm": FLAG,
    "backbone.split_text": FLAG,
    "backbone.dual_attention": integer(0),
    "autoencoder.gain": POSITIVE,
    "autoencoder.spectrum_power": NOT_NEGATIVE,
    "data.source.image_size": either(integer(1), RECTANGLE),
    "data.source.size": integer(1),
    "data.source.seed": integer(0),
    "stack.size": either(one_of("auto"), integer(1)),
    "stack.processes": either(one_of("auto"), integer(1)),
    "data.mean": either(one_of(None), list_of(number("a number", lambda x: True))),
    "data.std": either(one_of(None), list_of(POSITIVE)),
    "data.cache": one_of("device", "none"),
    "data.workers": integer(0),
}

# What every run has: parts that name a class, and sections of which every setting is needed.
PARTS = (
    *("path.schedule", "path.target", "sampler", "backbone", "data.source", "text", "autoencoder"),
    *("solver", "solver.rule", "solver.grid", "extractor", "optimizer", "ema"),
)
SECTIONS = ("seed", "sigma_data", "data.name", "data.cache", "data.workers", "trainer.", "evaluation.")

# Where a run goes, as typed. What its folder is called later, once moved, need not follow these.
PLACE_LIMITS = {"sweep": FOLDER_NAME, "runs": Limit("the name of a folder", NAME.holds)}

# What a part gets beside its config, where it is built.
SUPPLIED: dict[str, tuple[str, ...]] = {
    "backbone": ("channels", "size", "text"),
    "data.source": ("split",),
    "autoencoder": ("image_channels",),
    "loss": ("perceptual",),
    "critic": ("image_channels",),
}

# Whose files the weights of a class are; None where it reads any.
KINDS: dict[str, Kind | None] = {
    "ClipTower": CLIP,
    "Extractor": CLIP,
    "OpenClipExtractor": None,
    "KLAutoencoder": KL,
    "ClipFeatures": CLIP,
    "LPIPS": None,
    "GenEval": DETECTOR,
    "Attributes": DETECTOR,
}

# What evaluation and sampling are told beside the config of their run.
OPTION_LIMITS: dict[str, Limit] = {
    "checkpoint": one_of("best", "last"),
    "n": integer(1),
    "steps": integer(1),
    "guidance": NOT_NEGATIVE,
    "weights": one_of("ema", "raw"),
    "seed": integer(0),
}


def check_limits(values: Mapping[str, Any], limits: Mapping[str, Limit]) -> None:
    """Raises ValueError at the first value outside its limit."""
    for key, limit in limits.items():
        value: Any = values
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
        else:
            if not limit.holds(value):
                raise ValueError(f"{key}={_shown(value)}: allowed is {limit.allowed}")


def check_train(cfg: DictConfig) -> None:
    """Everything about a run that can be refused before it starts; without torch where all classes are this package's.

    Raises ValueError.
    """
    values = plain_values(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    check_values(values)
    _check_place(values)


def check_stored(cfg: DictConfig) -> None:
    """As `check_train`, of a run whose folder is there: where that lies, and what it is called, are right as they are.

    Raises ValueError.
    """
    check_values(plain_values(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)))


def plain_values(resolve: Callable[[], Any]) -> dict[str, Any]:
    """What `resolve` makes of a config. Raises ValueError for OmegaConf's refusals."""
    try:
        return resolve()
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key} is missing: it has no default, give {error.full_key}=...") from None
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from None


def check_values(values: Mapping[str, Any]) -> None:
    """As `check_stored`, of a config that is resolved."""
    _check_there(values)
    check_formulation(values["path"], values["sampler"], values.get("weighting"))
    check_solver(values["solver"], values["path"])
    check_text(values)
    check_limits(values, LIMITS)
    if is_stacked(values):
        check_stack(values)
    _check_shapes(values)
    check_files(values)
    check_keys(values)
    check_classes(values)


def _check_there(values: Mapping[str, Any]) -> None:
    """Raises ValueError where a part that every run has is missing or names no class, or a setting is missing."""
    encoders = _at(values, "text.encoders")
    if not isinstance(encoders, Mapping) or not encoders:
        raise ValueError(f"text.encoders={_shown(encoders)}: allowed is a mapping of at least one text encoder by name")
    metrics = _at(values, "metric")
    if not isinstance(metrics, Mapping) or not metrics:
        raise ValueError(f"metric={_shown(metrics)}: allowed is a list of at least one metric, such as [fid,clip]")
    if "_target_" in metrics:
        raise ValueError(
            f"metric._target_={metrics['_target_']}: a metric has a name; allowed is NAME: and below it _target_, as "
            "conf/metric/fid.yaml has it"
        )
    callbacks = {} if values.get("callbacks") is None else values["callbacks"]
    if not isinstance(callbacks, Mapping):
        raise ValueError(f"callbacks={_shown(callbacks)}: allowed is a list of options, such as [timer], or null")
    each = [*(f"text.encoders.{name}" for name in encoders), *(f"metric.{name}" for name in metrics)]
    each += [f"callbacks.{name}" for name in callbacks]
    for place in (*PARTS, *each):
        part = _at(values, place)
        if not isinstance(part, Mapping):
            raise ValueError(f"{place}={_shown(part)}: allowed is a part that names its class, _target_")
        if "_target_" not in part:
            raise ValueError(f"{place}={_shown(part)}: it names no class; allowed is a part with _target_")
    sections = (
        *SECTIONS,
        *(f"{key}." for key in ("optimizer", "ema") if declared.own_class(str(values[key]["_target_"]))),
    )
    for key in LIMITS:
        if key.startswith(sections) and _at(values, key, missing=LIMITS) is LIMITS:
            raise ValueError(f"{key} is missing: it has no default, give {key}=...")


def _at(values: Mapping[str, Any], key: str, missing: Any = None) -> Any:
    """The value at a dotted key; `missing` where there is none."""
    node: Any = values
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return missing
        node = node[name]
    return node


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


def _check_shapes(values: Mapping[str, Any]) -> None:
    backbone, trainer = values["backbone"], values["trainer"]
    width, heads = backbone.get("width"), backbone.get("heads")
    if width and width % (heads or 64):
        raise ValueError(
            f"backbone.width={width}: allowed is a multiple of backbone.heads={heads}"
            if heads
            else f"backbone.width={width}: allowed is a multiple of 64, or set backbone.heads"
        )
    if width and width % 4 and str(backbone["_target_"]).startswith("flowzoo."):
        raise ValueError(f"backbone.width={width}: allowed is a multiple of 4, for sines and cosines of two axes")
    dual, depth = backbone.get("dual_attention", 0), backbone.get("depth")
    if depth and dual > depth:
        raise ValueError(f"backbone.dual_attention={dual}: allowed is 0 to backbone.depth={depth}")
    if size := values["data"].get("source", {}).get("image_size"):
        check_patches(values, pair(size), values["autoencoder"].get("factor", 1))
    devices = trainer.get("devices")
    if values.get("halving") and (devices, trainer.get("num_nodes", 1)) != (1, 1):
        raise ValueError(
            f"trainer.devices={devices} and trainer.num_nodes={trainer.get('num_nodes', 1)} with halving: "
            "allowed are 1 and 1"
        )
    count = len(devices) if isinstance(devices, list) else devices
    if _is_integer(count):
        processes = count * trainer.get("num_nodes", 1)
        if trainer["batch_size"] % processes:
            raise ValueError(
                f"trainer.batch_size={trainer['batch_size']}: allowed is a multiple of the {processes} processes "
                "(trainer.devices times trainer.num_nodes)"
            )


def check_patches(values: Mapping[str, Any] | DictConfig, size: tuple[int, int], factor: int) -> None:
    """Raises ValueError where images of (H, W) pixels are not cut by the autoencoder's factor and the patches."""
    patch, told = values["backbone"].get("patch_size"), _edges(size)
    if any(edge % factor for edge in size):
        raise ValueError(f"autoencoder.factor={factor}: allowed is a divisor of {told}, the image size")
    latent = (size[0] // factor, size[1] // factor)
    seen = f"{_edges(latent)}, the image size" + (f" {told} over autoencoder.factor={factor}" if factor > 1 else "")
    if patch and any(edge % patch for edge in latent):
        raise ValueError(f"backbone.patch_size={patch}: allowed is a divisor of {seen}")


def _edges(size: tuple[int, int]) -> str:
    return " and ".join(map(str, dict.fromkeys(size)))


def check_files(values: Mapping[str, Any]) -> None:
    """Raises ValueError for data and weights that are not there, or are no weights of their class."""
    source = values["data"].get("source", {})
    given = {"data.source.path": source.get("path"), "data.source.val_path": source.get("val_path")}
    frozen = {key: values[key] for key in ("extractor", "autoencoder", "perceptual") if values.get(key)}
    encoders = values.get("text", {}).get("encoders", {})
    frozen |= {f"text.encoders.{name}": part for name, part in encoders.items()}
    given |= {f"{place}.weights": part.get("weights") for place, part in frozen.items()}
    from_hub = declared.own_class(str(values.get("autoencoder", {}).get("_target_"))) == "DiffusersAutoencoder"
    for key, path in given.items():
        if key == "autoencoder.weights" and from_hub and is_hub_name(path):
            continue
        if path is not None and not user_path(path).exists():
            raise ValueError(f"{key}={path}: there is no such file or folder")
    for place, part in frozen.items():
        path, cls = part.get("weights"), declared.own_class(str(part.get("_target_")))
        if path is not None and cls in KINDS:
            try:
                check_weights(user_path(path), KINDS[cls])
            except (OSError, ValueError) as error:
                raise ValueError(f"{place}.weights={path}: {error}") from None
    now = content_of(values) if values.get(CONTENT) else {}
    for key, digest in values.get(CONTENT, {}).items():
        path = reduce(lambda node, name: node[name], key.split("."), values)
        if key not in now:
            raise ValueError(f"{key}={_shown(path)}: there is no such file or folder")
        if now[key] != digest:
            raise ValueError(
                f"{key}={_shown(path)}: it holds other weights (sha256 {now[key][:16]}) than the run is named by "
                f"(sha256 {digest[:16]}); allowed: a file with the same content"
            )


def _check_place(values: Mapping[str, Any]) -> None:
    check_limits(values, PLACE_LIMITS)
    runs = user_path(values["runs"])
    nearest = next(folder for folder in (runs, *runs.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise ValueError(f"runs={runs}: {nearest} is a file; allowed is a folder")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"runs={runs}: no permission to write in {nearest}")


def check_classes(values: Mapping[str, Any]) -> None:
    """Refuses parameters that a class does not take, and lacks those that it needs.

    Classes from outside the package know their own limits: they are imported, and a formulation of them is built.
    """
    outside = False
    for place, part in _parts(values):
        target = part["_target_"]
        if not isinstance(target, str):
            raise ValueError(f"{place}._target_={_shown(target)}: allowed is the name of a class")
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
        formulation = formulation_of(cfg, 1.0)
        formulation.density(formulation.coefficients(torch.tensor([0.25, 0.75])).t)
        instantiate(cfg.solver).sample(lambda z, c: torch.zeros_like(z), formulation, torch.ones(1, 1), steps=2)
    except (InstantiationException, TypeError) as error:
        raise ValueError(str(explained(error))) from error
