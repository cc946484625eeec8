"""What a run is called: by the formulation that was resolved and by a hash of all that can change its weights.

Equal are configs that compute the same, however they are written: `comparable` says what of a config counts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowzoo.content import SHIPPED_WITH, sha256_of
from flowzoo.formulation import declared, names
from flowzoo.paths import user_path
from flowzoo.sizes import patch_of

# Keys that can change neither a weight, but for rounding, nor which weights are kept. `sigma_data` and `captions` are
# inside path.target and data.source where they matter. trainer.accumulate adds up the same numbers in another order, as
# another GPU does. Missing on purpose: trainer.devices and num_nodes, which split the batch and the random streams,
# trainer.precision, which rounds, and trainer.val_every and val_samples, which choose the checkpoint.
NOT_IN_HASH = (
    *("runs", "sweep", "hydra", "stack", "logger", "callbacks", "extractor", "metric", "solver"),
    *("evaluation", "halving"),
    *("sigma_data", "captions", "trainer.accelerator", "trainer.strategy", "trainer.compile"),
    "trainer.accumulate",
    *("trainer.log_every", "trainer.checkpoint_every", "data.cache", "data.workers"),
)

# Top-level key of a config: the sha256 of each file of weights that training reads, by the key that names the file.
# It is written when the run is composed, so that a planned run keeps its name when the file moves.
CONTENT = "content"

WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npz")  # suffixes that tell weights under any key
_HYDRAS = ("_convert_", "_recursive_")  # how a part is built, not what it computes

Config = Mapping[Any, Any] | DictConfig


def comparable(cfg: Config, without: Iterable[str] = ("logger", "hydra")) -> dict[str, Any]:
    """A config in the form that all configs share which compute the same, less some of its top-level keys.

    Our classes are told by their words, wherever they are kept, and classes from outside by their whole path. A law is
    the simplest one that it equals. 1, 1.0 and 1e0 are one number, and 0 and -0.0; true and "1" are no numbers. Weights
    are told by what the file holds, not by where it lies.
    """
    skipped = set(without)  # key by key: the logger's config asks for this hash
    values = {str(key): _resolved(cfg, str(key)) for key in cfg if str(key) not in skipped}
    content = values.pop(CONTENT, None) or content_of(values)
    values = _with_one_rate(_with_patches(declared.simplest(values)))
    return {key: _comparable(value, key, content) for key, value in values.items()}


def _with_patches(values: dict[str, Any]) -> dict[str, Any]:
    """With the patches that null stands for, where the autoencoder's factor is known without its weights."""
    backbone, autoencoder = (values.get(key) for key in ("backbone", "autoencoder"))
    if not isinstance(backbone, Mapping) or not isinstance(autoencoder, Mapping):
        return values
    pixels = declared.own_class(str(autoencoder.get("_target_"))) == "Pixels"
    factor = 1 if pixels else autoencoder.get("factor")
    if "patch_size" not in backbone or not isinstance(factor, int):
        return values
    return {**values, "backbone": {**backbone, "patch_size": patch_of(backbone["patch_size"], factor)}}


def _with_one_rate(values: dict[str, Any]) -> dict[str, Any]:
    """Without warm-up and decay where a class says the learning rate instead, or without that where there is none."""
    optimizer = values.get("optimizer")
    if not isinstance(optimizer, Mapping) or "rate" not in optimizer:
        return values
    unused = ("warmup_steps", "decay_to") if optimizer["rate"] else ("rate",)
    return {**values, "optimizer": {key: value for key, value in optimizer.items() if key not in unused}}


def part_identity(part: Config) -> dict[str, Any]:
    """`comparable` of one part alone, with every file that it names by its content: what decides features.

    The batch size of our own classes is left out: it changes nothing but the memory that they need.
    """
    values: Any = OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part
    content = {place: sha256_of(path) for place, path in _weights(values, "")}
    if declared.own_class(str(values.get("_target_"))):
        values = {key: value for key, value in values.items() if key != "batch_size"}
    return _comparable(values, "", content)


def _comparable(node: Any, place: str, content: Mapping[str, str]) -> Any:
    if place in content:
        return f"sha256:{content[place][:16]}"
    if isinstance(node, Mapping):
        inside = {str(key): value for key, value in node.items() if key not in _HYDRAS}
        told = {key: _comparable(value, _join(place, key), content) for key, value in inside.items()}
        return told | ({"_target_": declared.word_of(str(node["_target_"]))} if "_target_" in node else {})
    if isinstance(node, list | tuple):
        return [_comparable(value, _join(place, str(i)), content) for i, value in enumerate(node)]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    return node


def content_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of each file of weights that training reads, by its key in a resolved config.

    A file that is not there has none: `check` says so.
    """
    trained = {key: value for key, value in values.items() if key not in (*NOT_IN_HASH, CONTENT, "data")}
    found = {}
    for place, path in _weights(trained, ""):
        with suppress(OSError):
            found[place] = sha256_of(path)
    return found


def _weights(node: Any, place: str) -> Iterator[tuple[str, Path]]:
    """Every key that names a file or a folder of weights: by its own name, `weights`, or by the suffix of its value.

    A part without weights of its own may have those that come with the package.
    """
    if isinstance(node, Mapping):
        shipped = SHIPPED_WITH.get(declared.own_class(str(node.get("_target_"))) or "")
        for key, value in node.items():
            at, named = _join(place, str(key)), str(key) == "weights" or str(key).endswith("_weights")
            if value is None and key == "weights" and shipped:
                yield at, shipped
            elif isinstance(value, str) and (named or value.endswith(WEIGHTS)) and user_path(value).exists():
                yield at, user_path(value)
            else:
                yield from _weights(value, at)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _weights(value, _join(place, str(i)))


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def run_hash(cfg: Config) -> str:
    """Eight hexadecimal digits of the comparable config less `NOT_IN_HASH`."""
    kept = comparable(cfg, without=NOT_IN_HASH)
    for group, key in (name.split(".") for name in NOT_IN_HASH if "." in name):
        if isinstance(kept.get(group), Mapping):
            kept[group] = {name: value for name, value in kept[group].items() if name != key}
    return sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _resolved(cfg: Config, key: str) -> Any:
    value = cfg[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def run_variant(cfg: Config) -> str:
    """The printed name of the formulation, e.g. `rf/lognorm(0.00,1.00)`."""
    return names.variant_name(cfg["path"], cfg["sampler"], cfg.get("weighting"))


def backbone_label(cfg: Config) -> str:
    """What results call the backbone: its name with depth and width, e.g. `mmdit-d6-w256`."""
    b = cfg["backbone"]
    sizes = [f"{letter}{b[key]}" for letter, key in (("d", "depth"), ("w", "width")) if b.get(key) is not None]
    return "-".join([b.get("name", b["_target_"].rsplit(".", 1)[-1].lower()), *sizes])


def autoencoder_label(part: Config, factor: int | None, channels: int | None) -> str:
    """What files call an autoencoder: its word with its factor and channels, as far as known, e.g. `pca_f4_c16`.

    What the backbone sees otherwise than usual is told, too: `pca_f4_c16_power0.5`, `pixels_f1_c3_gain0.25`.
    """
    word = declared.word_of(str(part["_target_"])).rsplit(".", 1)[-1].lower().removesuffix("autoencoder")
    seen = {"power": (part.get("spectrum_power", 0.0), 0.0), "gain": (part.get("gain", 1.0), 1.0)}
    told = "".join(f"_{key}{value:g}" for key, (value, usual) in seen.items() if value != usual)
    sizes = "".join(f"_{key}{size}" for key, size in (("f", factor), ("c", channels)) if size is not None)
    return f"{word.removeprefix('block')}{sizes}{told}"


def run_name(cfg: Config) -> str:
    """<variant>-s<seed>-<hash>, of a composed config or of its resolved values."""
    formulation = names.folder_name(cfg["path"], cfg["sampler"], cfg.get("weighting"))
    return f"{formulation}-s{cfg['seed']}-{run_hash(cfg)}"


def run_folder(cfg: Config) -> Path:
    """<runs>/<sweep>/<variant>-s<seed>-<hash>."""
    return user_path(cfg["runs"]) / str(cfg["sweep"]) / run_name(cfg)


def _of_this_config(what: str, *, _root_: DictConfig) -> str:
    folder = run_folder(_root_)
    return {"folder": str(folder), "name": folder.name, "variant": run_variant(_root_)}[what]


# Loggers are told their run: ${run:name}, ${run:folder} and ${run:variant} in conf/logger.
OmegaConf.register_new_resolver("run", _of_this_config, replace=True)
