"""Commands that do one thing with one config: above all what makes a frozen network, a file, and what looks at one.

Without torch.
"""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from flowzoo.paths import conf, user_path
from flowzoo.runs.config import config_loader
from flowzoo.runs.hydras import VERSION_BASE, arguments, is_question
from flowzoo.runs.refusal import UserErrors, refuse
from flowzoo.runs.signals import stoppable
from flowzoo.runs.store import Diverged, Run


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


def arguments_of_one(command: str, first: str = "", as_typed: Sequence[str] = ()) -> Namespace:
    """The arguments of a command that does one thing, with its own config: no multirun, no other config.

    Has Hydra answer --help and what else is a question, and exits; refuses flags that are for several jobs.
    `first` is what the command takes before key=value. Words whose key is in `as_typed` are none of Hydra's.
    """
    args = arguments()
    if is_question(args):
        sys.argv = [word for word in sys.argv if word.split("=", 1)[0] not in as_typed]
        hydra.main(config_path=str(conf()), config_name=command, version_base=VERSION_BASE)(lambda cfg: None)()
        sys.exit(0)
    if args.multirun or args.config_path or args.config_name or args.experimental_rerun:
        allowed = f"allowed are {first}key=value, --config-dir, --cfg job and --help"
        refuse(f"flowzoo.{command}", ValueError(allowed))
    return args


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
    path, suffix = user_path(str(given)), Path(example).suffix
    if path.suffix != suffix and not path.is_dir():
        raise ValueError(f"output={given}: allowed is the name of a file that ends in {suffix}")
    if path.is_dir():
        raise ValueError(f"output={given}: this is a folder; allowed is a file, such as {path / example}")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise ValueError(f"output={given}: {nearest} is a file; allowed is a folder")
    if not os.access(nearest, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"output={given}: no permission to write there")
    return path


def refuse_another(output: Path, folder: Path) -> None:
    """Raises ValueError where the file is there before a training begins in `folder`: it may have taken hours."""
    if output.exists() and not Run(folder).status:
        raise ValueError(
            f"output={output}: there is a file of another training; allowed is another name, or to remove that file"
        )


def training_folder(output: Path, *told: Any) -> Path:
    """<output's name>-<hash of `told`> beside the output, so that another config never goes on from this training."""
    digest = sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return output.with_name(f"{output.stem}-{digest}")
