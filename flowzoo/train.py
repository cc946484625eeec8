"""Trains, samples and scores one formulation: `python -m flowzoo.train path=rf sampler=lognorm`."""

from collections.abc import Sequence
from importlib import import_module

from omegaconf import DictConfig

from flowzoo.runs.config import launch
from flowzoo.runs.output import follow
from flowzoo.runs.signals import stoppable


def run(cfg: DictConfig) -> None:
    """One run from its config to its rows of results; the same call goes on where an earlier one stopped."""
    stoppable(import_module)("flowzoo.stacks").run_group([cfg])  # torch takes seconds


def run_together(cfgs: Sequence[DictConfig]) -> int:
    """Runs with trainer=stacked, many in one program; returns the exit code."""
    code: int = stoppable(import_module)("flowzoo.stacks").run_stacks(cfgs)
    return code


def ready(cfgs: Sequence[DictConfig]) -> None:
    """Opens the data of every job that is not finished. Raises RunError."""
    from flowzoo.build import sources_of
    from flowzoo.runs.identity import run_folder
    from flowzoo.runs.store import Run

    begun = [cfg for cfg in cfgs if not Run(run_folder(cfg)).is_finished]
    for cfg in {(str(cfg.data), str(cfg.autoencoder), str(cfg.backbone)): cfg for cfg in begun}.values():
        sources_of(cfg)


if __name__ == "__main__":
    follow()
    launch("train", run, run_together, ready)
