"""Checkpoints: plain tensors and numbers under plain names, written beside and renamed, read strictly.

`last.ckpt` is Lightning's whole state, to go on from; `best.ckpt` holds the same `state_dict` and `ema` entries alone.
"""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from flowzoo.runs.files import RunError, saying
from flowzoo.training.ema import average

PREFIX = "backbone."
LAST, BEST = "last.ckpt", "best.ckpt"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write` fills a file beside `path`, which is then renamed: a reader sees the old file or the new one, whole.

    Raises RunError for a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with saying(f"cannot write {path}"):
        try:
            write(beside)
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)  # a full disk needs the space, and nobody reads half a checkpoint
            raise


def save(content: Mapping[str, Any], path: Path) -> None:
    """torch.save, with what the system refuses among the causes of its error: given a name it says less."""
    with open(path, "wb") as file:
        torch.save(content, file)


def load(path: Path, mmap: bool = False) -> dict[str, Any]:
    """A checkpoint on the CPU. FileNotFoundError where there is none, RunError where it cannot be read."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: was this run trained?")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise RunError(
            f"cannot read {path}, it is cut short or damaged: python -m sweeps retry SWEEP --failed --from scratch (or "
            f"removing it) trains the run anew; {BEST} and {LAST} are read independently of each other"
        ) from error


class AtomicIO(TorchCheckpointIO):
    """Lightning's way of writing checkpoints, but whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        write_atomically(Path(path), lambda part: save(checkpoint, part))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return load(Path(path))


def prefixed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's state_dict as the one of the whole module that checkpoints hold."""
    return {PREFIX + name: value for name, value in state.items()}


def save_weights(
    path: Path, state_dict: Mapping[str, Tensor], ema: Mapping[str, Any], step: int, val_loss: float
) -> None:
    """What evaluation and sampling need, and nothing else."""
    content = {"state_dict": state_dict, "ema": ema, "global_step": step, "val_loss_ema": val_loss}
    write_atomically(path, lambda part: save(content, part))


def step_of(path: Path) -> int:
    """Raises as `load`."""
    return load(path, mmap=True)["global_step"]


def read_weights(path: Path, weights: str) -> tuple[dict[str, Tensor], int]:
    """The `raw` or `ema` state of the backbone in a checkpoint, and its step. Raises as `load`."""
    content = load(path)
    state = {name.removeprefix(PREFIX): value for name, value in content["state_dict"].items()}
    if weights == "ema":
        state.update(average(content["ema"]) or {})
    return state, content["global_step"]


def load_state(backbone: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Strictly. ValueError names `path`, where the state comes from."""
    try:
        backbone.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this backbone: {error}") from None


def load_weights(path: Path, backbone: nn.Module, weights: str) -> int:
    """Puts the `raw` or `ema` weights of a checkpoint into `backbone`, strictly; returns their step.

    Raises FileNotFoundError, RunError and ValueError with a message for the user.
    """
    state, step = read_weights(path, weights)
    load_state(backbone, state, path)
    return step
