"""Refusing a config before anything is written: every message names the value and what is allowed."""

import os
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from flowzoo.formulation import declared
from flowzoo.formulation.check import check as check_formulation
from flowzoo.formulation.check import check_solver
from flowzoo.network_file import CLIP, DETECTOR, KL, Kind, check_weights, is_hub_name
from flowzoo.paths import user_path
from flowzoo.runs.classes import check_classes
from flowzoo.runs.grouping import check_stack, is_stacked
from flowzoo.runs.identity import CONTENT, content_of
from flowzoo.runs.keys import check_keys
from flowzoo.runs.limits import GRIDS, LIMITS, PLACE_LIMITS, Limit, check_limits, spelled
from flowzoo.runs.text import check_text
from flowzoo.signatures import signature_of
from flowzoo.sizes import pair, patch_of

# What every run has: parts that name a class, and sections of which every setting is needed.
PARTS = (
    *("path.schedule", "path.target", "sampler", "backbone", "data.source", "text", "autoencoder"),
    *("solver", "solver.rule", "solver.grid", "extractor", "optimizer", "ema"),
)
SECTIONS = ("seed", "sigma_data", "data.name", "data.cache", "data.workers", "trainer.", "evaluation.")

# Settings that runs made by an older flowzoo lack; what stands for them is the default.
YOUNG = ("trainer.accumulate",)

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


def check_single(cfg: DictConfig, command: str, limits: Mapping[str, Limit]) -> dict[str, Any]:
    """The resolved values of the config of `python -m flowzoo.<command>`, which does one thing; `limits` are its own.

    Raises ValueError for a key that nothing reads, a value that is not allowed, parameters that a class does not take,
    and files that are not there.
    """
    values = plain_values(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    check_limits(values, {**limits_of(values), **limits})
    check_keys(values, command)
    check_classes(values)
    check_files(values)
    return values


def check_values(values: Mapping[str, Any]) -> None:
    """As `check_stored`, of a config that is resolved."""
    _check_there(values)
    check_formulation(values["path"], values["sampler"], values.get("weighting"))
    check_solver(values["solver"], values["path"])
    check_text(values)
    check_limits(values, limits_of(values))
    for grid in values["evaluation"].get("grids") or []:
        check_solver({**values["solver"], "grid": {"_target_": GRIDS[grid]}}, values["path"])
    if is_stacked(values):
        check_stack(values)
    _check_shapes(values)
    check_files(values)
    check_keys(values)
    check_classes(values)


# What every optimiser has, whoever wrote it.
_OF_ALL = ("optimizer.lr", "optimizer.warmup_steps", "optimizer.decay_to")


def limits_of(values: Mapping[str, Any]) -> dict[str, Limit]:
    """`LIMITS`, less those of the parameters of an optimiser or an average from outside: its class knows its own."""
    ours = [key for key in ("optimizer", "ema") if declared.own_class(str(values.get(key, {}).get("_target_")))]
    return {k: v for k, v in LIMITS.items() if k in _OF_ALL or k.split(".")[0] not in {"optimizer", "ema"} - set(ours)}


def _check_there(values: Mapping[str, Any]) -> None:
    """Raises ValueError where a part that every run has is missing or names no class, or a setting is missing."""
    encoders = _at(values, "text.encoders")
    if not isinstance(encoders, Mapping) or not encoders:
        raise ValueError(
            f"text.encoders={spelled(encoders)}: allowed is a mapping of at least one text encoder by name"
        )
    metrics = _at(values, "metric")
    if not isinstance(metrics, Mapping) or not metrics:
        raise ValueError(f"metric={spelled(metrics)}: allowed is a list of at least one metric, such as [fid,clip]")
    if "_target_" in metrics:
        raise ValueError(
            f"metric._target_={metrics['_target_']}: a metric has a name; allowed is NAME: and below it _target_, as "
            "conf/metric/fid.yaml has it"
        )
    callbacks = {} if values.get("callbacks") is None else values["callbacks"]
    if not isinstance(callbacks, Mapping):
        raise ValueError(f"callbacks={spelled(callbacks)}: allowed is a list of options, such as [timer], or null")
    each = [*(f"text.encoders.{name}" for name in encoders), *(f"metric.{name}" for name in metrics)]
    each += [f"callbacks.{name}" for name in callbacks]
    for place in (*PARTS, *each):
        part = _at(values, place)
        if not isinstance(part, Mapping):
            raise ValueError(f"{place}={spelled(part)}: allowed is a part that names its class, _target_")
        if "_target_" not in part:
            raise ValueError(f"{place}={spelled(part)}: it names no class; allowed is a part with _target_")
    needed = [key for key in LIMITS if key.startswith(SECTIONS) and key not in YOUNG]
    for group in ("optimizer", "ema"):  # all that our own take, so that a run's name says it
        target = str(values[group]["_target_"])
        takes = list(signature_of(target).parameters) if declared.own_class(target) else []
        needed += [f"{group}.{name}" for name in takes]
    needed += ["optimizer.lr"]
    needed += [] if values["optimizer"].get("rate") else ["optimizer.warmup_steps", "optimizer.decay_to"]
    for key in needed:
        if _at(values, key, missing=LIMITS) is LIMITS:
            raise ValueError(f"{key} is missing: it has no default, give {key}=...")


def _at(values: Mapping[str, Any], key: str, missing: Any = None) -> Any:
    """The value at a dotted key; `missing` where there is none."""
    node: Any = values
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return missing
        node = node[name]
    return node


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
    if isinstance(count, int):
        processes, parts = count * trainer.get("num_nodes", 1), trainer.get("accumulate", 1)
        if trainer["batch_size"] % processes:
            raise ValueError(
                f"trainer.batch_size={trainer['batch_size']}: allowed is a multiple of the {processes} processes "
                "(trainer.devices times trainer.num_nodes)"
            )
        if trainer["batch_size"] % (processes * parts):
            share = "trainer.batch_size" if processes == 1 else f"trainer.batch_size / {processes} processes"
            raise ValueError(
                f"trainer.accumulate={parts}: allowed is a divisor of {trainer['batch_size'] // processes}, {share}"
            )


def check_patches(values: Mapping[str, Any] | DictConfig, size: tuple[int, int], factor: int) -> None:
    """Raises ValueError where images of (H, W) pixels are not cut by the autoencoder's factor and the patches."""
    backbone, told = values["backbone"], _edges(size)
    given = backbone.get("patch_size")
    patch = patch_of(given, factor) if "patch_size" in backbone else 1
    if declared.own_class(str(backbone["_target_"])) == "UViT" and (patch < 2 or patch & (patch - 1)):
        said = f"null, which is {patch} on autoencoder.factor={factor}" if given is None else patch
        raise ValueError(
            f"backbone.patch_size={said}: allowed with uvit is a power of two from 2 on, as it has a convolutional "
            "level for each halving"
        )
    if any(edge % factor for edge in size):
        raise ValueError(f"autoencoder.factor={factor}: allowed is a divisor of {told}, the image size")
    latent = (size[0] // factor, size[1] // factor)
    seen = f"{_edges(latent)}, the image size" + (f" {told} over autoencoder.factor={factor}" if factor > 1 else "")
    if any(edge % patch for edge in latent):
        raise ValueError(f"backbone.patch_size={patch}: allowed is a divisor of {seen}")


def _edges(size: tuple[int, int]) -> str:
    return " and ".join(map(str, dict.fromkeys(size)))


def check_files(values: Mapping[str, Any]) -> None:
    """Raises ValueError for data and weights that are not there, or are no weights of their class."""
    source = values["data"].get("source", {})
    given = {}
    # whose paths may be patterns and URLs, or names on a hub
    if declared.own_class(str(source.get("_target_"))) not in ("Shards", "HuggingFace"):
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
            raise ValueError(f"{key}={spelled(path)}: there is no such file or folder")
        if now[key] != digest:
            raise ValueError(
                f"{key}={spelled(path)}: it holds other weights (sha256 {now[key][:16]}) than the run is named by "
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
