"""A stack's checkpoint is the checkpoints of its members: each file is what the run alone would have written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor, nn

from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.training.checkpoint import PREFIX, load, save, write_atomically
from flowzoo.training.optimizer import Optimizer
from flowzoo.training.stacked import member_ema


class Members(CheckpointIO):
    """Saves a stack as one file a variant and loads it from these, whatever path the trainer names.

    Each file is written whole or not at all; a kill between two of them leaves variants at different steps, which
    `load_checkpoint` refuses: they are brought to one step first.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        backbone: StackedBackbone,
        optimizers: Sequence[Optimizer],
        steps: int,
        device: torch.device,
    ) -> None:
        self.paths, self.backbone, self.optimizers, self.steps = paths, backbone, optimizers, steps
        self.device = device

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """All but those that diverged: their last checkpoint is the one before."""
        for i, own in enumerate(self.paths):
            if not checkpoint["diverged_at"][i]:
                write_atomically(own, lambda part, i=i: save(self.split(checkpoint, i), part))  # type: ignore[misc]

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return self.join([load(own) for own in self.paths])

    def remove_checkpoint(self, path: Any) -> None:
        raise NotImplementedError("checkpoints of runs are replaced, never removed")

    def split(self, checkpoint: Mapping[str, Any], i: int) -> dict[str, Any]:
        """The checkpoint of variant i as a solo trainer writes it."""
        cpu = lambda x: x[i].detach().to("cpu", copy=True)  # noqa: E731
        (state,) = checkpoint["optimizer_states"][0]["state"].values()
        moments = {name: self.backbone.cut(cpu(state[name])) for name in ("exp_avg", "exp_avg_sq")}
        step, place = checkpoint["global_step"], state["step"].to("cpu", torch.float32)
        # An optimiser and a schedule of no weight, for all that they save beside the moments.
        adamw = self.optimizers[i].adamw([nn.Parameter(torch.empty(0, device=self.device))], self.device)
        schedule = self.optimizers[i].schedule(adamw, self.steps)
        rate = self.optimizers[i].lr * self.optimizers[i].factor(step, self.steps)
        (group,) = adamw.state_dict()["param_groups"]
        states = {
            k: {"step": place.clone(), **{name: values[parameter] for name, values in moments.items()}}
            for k, parameter in enumerate(self.backbone.shapes)
        }
        own = {
            "state_dict": {
                PREFIX + k: v for k, v in self.backbone.member(cpu(checkpoint["state_dict"][PREFIX + "flat"])).items()
            },
            "ema": member_ema(self.backbone, checkpoint["ema"], i),
            "optimizer_states": [
                {"state": states, "param_groups": [{**group, "lr": rate, "params": list(range(len(states)))}]}
            ],
            "lr_schedulers": [
                {**schedule.state_dict(), "last_epoch": step, "_step_count": step + 1, "_last_lr": [rate]}
            ],
            "callbacks": {name: _sliced(value, i) for name, value in checkpoint["callbacks"].items()},
            "since_last_record": [values[i : i + 1] for values in checkpoint["since_last_record"]],
        }
        return {k: v for k, v in checkpoint.items() if k != "diverged_at"} | own

    def join(self, each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A checkpoint of the stack. ValueError where the members are at different steps or of another kind."""
        steps = sorted({one["global_step"] for one in each})
        if len(steps) > 1:
            raise ValueError(f"checkpoints of steps {steps} cannot go on together; allowed: all of one step")
        first, shapes = each[0], self.backbone.shapes
        row = self.backbone.row
        flat = torch.stack([row({k.removeprefix(PREFIX): v for k, v in c["state_dict"].items()}) for c in each])
        rest = {k: v for k, v in first["state_dict"].items() if k.removeprefix(PREFIX) not in shapes}

        def moment(one: Mapping[str, Any], name: str) -> Tensor:
            state = one["optimizer_states"][0]["state"]
            return row({parameter: state[k][name] for k, parameter in enumerate(shapes)})

        state = {name: torch.stack([moment(one, name) for one in each]) for name in ("exp_avg", "exp_avg_sq")}
        state["step"] = first["optimizer_states"][0]["state"][0]["step"].clone()
        lr, betas, eps = (first["optimizer_states"][0]["param_groups"][0][k] for k in ("lr", "betas", "eps"))
        group = {"lr": lr, "betas": betas, "eps": eps, "params": [0]}
        shadow = torch.stack([row(one["ema"]["shadow"]) for one in each])
        own = {
            "state_dict": {
                PREFIX + "flat": flat,
                **{f"{PREFIX}skeleton.{k.removeprefix(PREFIX)}": v for k, v in rest.items()},
            },
            "ema": {**first["ema"], "shadow": {"flat": shadow}},
            "optimizer_states": [{"state": {0: state}, "param_groups": [group]}],
            "lr_schedulers": [],
            "callbacks": {
                name: {k: [x for one in each for x in one["callbacks"][name][k]] for k in value}
                for name, value in first["callbacks"].items()
            },
            "since_last_record": [
                [x for one in each for x in one["since_last_record"][k]] for k in range(len(first["since_last_record"]))
            ],
        }
        return {**first, **own}


def _sliced(state: Mapping[str, Sequence[Any]], i: int) -> dict[str, Any]:
    """A callback's state, lists with an entry a variant, of one of them."""
    return {name: list(values[i : i + 1]) for name, values in state.items()}
