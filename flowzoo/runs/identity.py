"""What a run is called: by the formulation that was resolved and by a hash of all that can change its weights."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowzoo.formulation import names
from flowzoo.paths import user_path

# Keys that can change neither a weight nor which weights are kept. `sigma_data` and `captions` are inside path.target
# and data.source where they matter. Missing on purpose: trainer.devices and num_nodes, which split the batch and the
# random streams, trainer.precision, which rounds, and trainer.val_every and val_samples, which choose the checkpoint.
NOT_IN_HASH = (
    *("runs", "sweep", "hydra", "stack", "logger", "metric", "solver", "evaluation", "halving"),
    *("sigma_data", "captions", "trainer.accelerator", "trainer.strategy", "trainer.compile", "trainer.progress"),
    *("trainer.log_every", "trainer.checkpoint_every", "data.cache", "data.workers"),
)


Config = Mapping[Any, Any] | DictConfig


def run_hash(cfg: Config) -> str:
    """Eight hexadecimal digits of the resolved config less `NOT_IN_HASH`."""
    # Key by key: the logger's config asks for this hash.
    kept = {str(key): _resolved(cfg, str(key)) for key in cfg if str(key) not in NOT_IN_HASH}
    for group, key in (name.split(".") for name in NOT_IN_HASH if "." in name):
        if isinstance(kept.get(group), Mapping):
            kept[group] = {name: value for name, value in kept[group].items() if name != key}
    return sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _resolved(cfg: Config, key: str) -> Any:
    value = cfg[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def run_variant(cfg: Config) -> str:
    """The printed name of the formulation, e.g. `rf/lognorm(0.00,1.00)`."""
    return names.variant_name(cfg["path"], cfg["sampler"])


def backbone_label(cfg: Config) -> str:
    """What results call the backbone: its name with depth and width, e.g. `mmdit-d6-w256`."""
    b = cfg["backbone"]
    sizes = [f"{letter}{b[key]}" for letter, key in (("d", "depth"), ("w", "width")) if b.get(key) is not None]
    return "-".join([b.get("name", b["_target_"].rsplit(".", 1)[-1].lower()), *sizes])


def run_name(cfg: Config) -> str:
    """<variant>-s<seed>-<hash>, of a composed config or of its resolved values."""
    return f"{names.file_name(run_variant(cfg))}-s{cfg['seed']}-{run_hash(cfg)}"


def run_folder(cfg: Config) -> Path:
    """<runs>/<sweep>/<variant>-s<seed>-<hash>."""
    return user_path(cfg["runs"]) / str(cfg["sweep"]) / run_name(cfg)


def _of_this_config(what: str, *, _root_: DictConfig) -> str:
    folder = run_folder(_root_)
    return {"folder": str(folder), "name": folder.name, "variant": run_variant(_root_)}[what]


# Loggers are told their run: ${run:name}, ${run:folder} and ${run:variant} in conf/logger.
OmegaConf.register_new_resolver("run", _of_this_config, replace=True)
