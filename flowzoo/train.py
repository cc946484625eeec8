"""Trains, samples and scores one formulation: `python -m flowzoo.train path=rf sampler=lognorm`."""

from collections.abc import Sequence
from importlib import import_module

from omegaconf import DictConfig

from flowzoo.runs.launch import launch
from flowzoo.runs.output import follow
from flowzoo.runs.signals import stoppable


def run(*cfgs: DictConfig) -> None:
    """Runs of one kind, or one alone, from configs to rows; the same call goes on where an earlier one stopped."""
    build, lifecycle = map(stoppable(import_module), ("flowzoo.build", "flowzoo.training.lifecycle"))  # torch: seconds
    lifecycle.train_and_score(stoppable(build.jobs_left)(cfgs))


def run_together(cfgs: Sequence[DictConfig]) -> int:
    """Runs with trainer=stacked, many in one program; returns the exit code."""
    code: int = stoppable(import_module)("flowzoo.stacks").run_stacks(cfgs)
    return code


def ready(cfgs: Sequence[DictConfig]) -> None:
    """Opens the data of all runs before the first begins. Raises RunError."""
    import_module("flowzoo.build").open_ahead(cfgs)


if __name__ == "__main__":
    follow()
    launch("train", run, run_together, ready)
