"""Checkpoints: plain tensors and numbers under plain names, written beside and renamed, read strictly.

`last.ckpt` is Lightning's whole state, to go on from; `best.ckpt` holds the same `state_dict` and `ema` entries alone.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from flowzoo.training.ema import EMA, average

PREFIX = "backbone."
WEIGHTS = ("ema", "raw", "init")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """`write` fills a file beside `path`, which is then renamed: a reader sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(beside(path))
    publish(path)


def beside(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def publish(path: Path) -> None:
    """Gives the finished file beside `path` its name."""
    with open(beside(path), "rb") as file:
        os.fsync(file.fileno())
    os.replace(beside(path), path)


def save_weights(path: Path, backbone: nn.Module, ema: EMA, step: int, val_loss: float) -> None:
    """What evaluation and sampling need, and nothing else."""
    content = {
        "state_dict": {PREFIX + name: value for name, value in backbone.state_dict().items()},
        "ema": ema.state_dict(),
        "global_step": step,
        "val_loss_ema": val_loss,
    }
    write_atomically(path, lambda part: torch.save(content, part))


def load_weights(path: Path, backbone: nn.Module, weights: str) -> int:
    """Puts the `raw` or `ema` weights of a checkpoint into `backbone`, strictly; returns their step.

    Raises FileNotFoundError and ValueError with a message for the user.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: was this run trained?")
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = {name.removeprefix(PREFIX): value for name, value in content["state_dict"].items()}
    if weights == "ema":
        state.update(average(content["ema"]) or {})
    try:
        backbone.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this backbone: {error}") from None
    return content["global_step"]
