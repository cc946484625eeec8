"""Checkpoints: a file a run, plain tensors and numbers under plain names, written beside and renamed, read strictly.

`best.ckpt` holds `state_dict`, `ema`, `global_step` and `val_loss_ema`: what sampling and scoring need. `last.ckpt`
holds the first three and what training goes on from. Runs that are trained together write a file each, the same as each
would write alone.
"""

import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.runs.files import RunError, write_atomically
from flowzoo.runs.store import Run
from flowzoo.training.ema import average
from flowzoo.training.updates import OWN

PREFIX = "backbone."
LAST, BEST = "last.ckpt", "best.ckpt"
LIGHTNINGS = ("epoch", "global_step", "pytorch-lightning_version", "loops")  # kept as Lightning wrote them


class Checkpoints(CheckpointIO):
    """Maps what Lightning saves and loads to a file a run, whatever path the trainer names.

    Each file is written whole or not at all; a kill between two of them leaves variants at different steps, which
    `load_checkpoint` refuses: they are brought to one step first.
    """

    def __init__(self, paths: Sequence[Path], network: StackedBackbone) -> None:
        self.paths, self.network = paths, network

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """All but those that diverged: their last checkpoint is the one before."""
        program, common = checkpoint["program"], {name: checkpoint[name] for name in LIGHTNINGS}
        for i, own in enumerate(self.paths):
            if not program["diverged_at"][i]:
                content = {**common, **self.of_run(program, i)}
                write_atomically(own, lambda part, content=content: save(content, part))  # type: ignore[misc]

    def of_run(self, program: Mapping[str, Any], i: int) -> dict[str, Any]:
        """The share of variant i in a program's state."""
        loss, norm, count = program["since_last_record"]
        return {
            **weights_of(self.network, program, i),
            "optimizer": share(self.network, program["optimizer"], i),
            "since_last_record": [loss[i], norm[i], count],
            "val_loss_ema": program["best"][i],
        }

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """ValueError where the runs are at different steps."""
        each = [load(own) for own in self.paths]
        steps = sorted({one["global_step"] for one in each})
        if len(steps) > 1:
            raise ValueError(f"checkpoints of steps {steps} cannot go on together; allowed: all of one step")
        rows = lambda states: torch.stack([self.network.row(state) for state in states])  # noqa: E731
        first = each[0]

        def together(part: str) -> dict[str, Any]:
            by_name = {name for name, x in first[part].items() if isinstance(x, Mapping) and name != OWN}
            return {
                name: rows(o[part][name] for o in each) if name in by_name else x for name, x in first[part].items()
            }

        losses, norms, counts = zip(*(one["since_last_record"] for one in each), strict=True)
        program = {
            "weights": rows(plain(one["state_dict"]) for one in each),
            "ema": together("ema"),
            "optimizer": together("optimizer"),
            "since_last_record": [list(losses), list(norms), counts[0]],
            "best": [one["val_loss_ema"] for one in each],
        }
        # Lightning's own; of callbacks nothing is kept
        nothing: dict[str, Any] = {"state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "callbacks": {}}
        return {**{name: first[name] for name in LIGHTNINGS}, **nothing, "program": program}

    def remove_checkpoint(self, path: Any) -> None:
        raise NotImplementedError("checkpoints of runs are replaced, never removed")


def weights_of(network: StackedBackbone, program: Mapping[str, Any], i: int) -> dict[str, Any]:
    """`state_dict` and `ema` of variant i, on the CPU, from a program's state."""
    row = program["weights"][i].detach().to("cpu", copy=True)
    return {
        "state_dict": {PREFIX + name: value for name, value in network.member(row).items()},
        "ema": share(network, program["ema"], i),
    }


def share(network: StackedBackbone, state: Mapping[str, Any], i: int) -> dict[str, Any]:
    """What variant i has of a state, on the CPU: rows [V, P] as tensors by name, all else as it is."""
    cpu = lambda x: x.detach().to("cpu", copy=True) if isinstance(x, Tensor) else x  # noqa: E731
    cut = lambda x: network.cut(cpu(x[i])) if isinstance(x, Tensor) and x.ndim else tree_map(cpu, x)  # noqa: E731
    return {name: cut(x) for name, x in state.items()}


def plain(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's state from the one that checkpoints hold."""
    return {name.removeprefix(PREFIX): value for name, value in state_dict.items()}


def save(content: Mapping[str, Any], path: Path) -> None:
    """torch.save, with what the system refuses among the causes of its error: given a name it says less."""
    with open(path, "wb") as file:
        torch.save(content, file)


def save_weights(path: Path, weights: Mapping[str, Any], step: int, val_loss: float) -> None:
    """What evaluation and sampling need, and nothing else; `weights` as `weights_of` gives them."""
    content = {**weights, "global_step": step, "val_loss_ema": val_loss}
    write_atomically(path, lambda part: save(content, part))


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


def step_of(path: Path) -> int:
    """Raises as `load`."""
    return load(path, mmap=True)["global_step"]


def last_step(run: Run) -> int:
    """The step of a run's last checkpoint; 0 where there is none. Raises RunError."""
    path = run.path / "checkpoints" / LAST
    return step_of(path) if path.is_file() else 0


def set_preempted(run: Run) -> None:
    """Says that a run was interrupted, wherever it was: after its last word it stays what it is."""
    if run.state != "running":
        return
    at = {}
    with suppress(RunError):  # a damaged checkpoint is for the next attempt to tell
        at["step"] = last_step(run)
    run.set_status("preempted", **at)


def read_weights(path: Path, weights: str) -> tuple[dict[str, Tensor], int]:
    """The `raw` or `ema` state of the backbone in a checkpoint, and its step. Raises as `load`."""
    content = load(path)
    state = plain(content["state_dict"])
    if weights == "ema":
        state.update(average(content["ema"]) or {})
    return state, content["global_step"]


def load_into(backbone: nn.Module, path: Path, weights: str = "ema") -> None:
    """Puts `raw` or `ema` weights of a checkpoint into a backbone, in their precision. Raises as `read_row`."""
    state, _ = read_weights(path, weights)
    try:
        backbone.to(next(iter(state.values())).dtype).load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit this backbone: {error}") from None


def read_row(path: Path, network: StackedBackbone, weights: str) -> tuple[Tensor, int]:
    """The same as a row [P] of `network`. ValueError names `path` where the weights are another backbone's."""
    state, step = read_weights(path, weights)
    unknown = state.keys() - network.shapes.keys() - network.skeleton.state_dict().keys()
    try:
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is no weight of it")
        return network.row(state), step
    except ValueError as error:
        raise ValueError(f"{path} does not fit this backbone: {error}") from None
