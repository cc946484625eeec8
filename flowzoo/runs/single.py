"""Commands of one config beside the runs: what makes a frozen network, a file, and what looks at one. Without torch."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from flowzoo.paths import user_path
from flowzoo.runs.config import config_loader
from flowzoo.runs.launch import arguments_of_one
from flowzoo.runs.refusal import UserErrors, refuse
from flowzoo.runs.signals import stoppable
from flowzoo.runs.store import Diverged


def launch_single(command: str, run: Callable[[DictConfig], object], rate: str = "", fallback: str = "") -> NoReturn:
    """The entry point of `python -m flowzoo.<command>`: composes sys.argv's config as `composed` does, calls `run`.

    `rate` is the key of the learning rate, which is told where training diverged.
    Exits with 0, with 2 for a command that is refused, 1 where training fails, 130 where it is interrupted.
    """
    called = f"flowzoo.{command}"
    args = arguments_of_one(command)
    try:
        cfg = composed(command, args.overrides, args.config_dir, fallback)
        if args.cfg:
            print(OmegaConf.to_yaml(cfg), end="")
            sys.exit(0)
        stoppable(run)(cfg)
    except Diverged as error:
        print(f"{called}: {error}: lower {rate}={OmegaConf.select(cfg, rate)}", file=sys.stderr)
        sys.exit(1)
    except UserErrors as error:
        refuse(called, error)
    except KeyboardInterrupt as error:
        print(f"{called}: {str(error) or 'stopped'}; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def composed(command: str, overrides: Sequence[str], config_dir: str | None = None, fallback: str = "") -> DictConfig:
    """The config of a command, conf/<command>.yaml with `overrides`.

    `fallback`, GROUP=OPTION, is added where the config has no such group. Raises one of `UserErrors`.
    """
    with config_loader(config_dir) as loader:
        cfg = loader.load_configuration(command, list(overrides), RunMode.RUN)
        if fallback and fallback.split("=")[0] not in cfg:
            cfg = loader.load_configuration(command, [*overrides, fallback], RunMode.RUN)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def checked_output(given: Any, example: str) -> Path:
    """The file to be written, as the user named it. Raises ValueError where none can be written there."""
    path = user_path(str(given))
    if path.is_dir():
        raise ValueError(f"output={given}: this is a folder; allowed is a file, such as {path / example}")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise ValueError(f"output={given}: {nearest} is a file; allowed is a folder")
    if not os.access(nearest, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"output={given}: no permission to write there")
    return path


def training_folder(output: Path, *told: Any) -> Path:
    """<output's name>-<hash of `told`> beside the output, so that another config never goes on from this training."""
    digest = sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return output.with_name(f"{output.stem}-{digest}")
