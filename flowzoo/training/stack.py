"""A stack of runs from their configs to their rows of results, in whatever state an earlier attempt left each."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from omegaconf import DictConfig
from rich.console import Console

from flowzoo.build import build_stack, device_of, sources_of
from flowzoo.data.overview import tell
from flowzoo.data.source import Source
from flowzoo.runs.signals import shielded, stoppable
from flowzoo.runs.store import FINISHED, Interrupted, Run, RunBusy
from flowzoo.scoring import Evaluation, Scoring
from flowzoo.scoring_stacked import score_stack
from flowzoo.training.fit import check_optimizer, fit_stack, step_of
from flowzoo.training.halving import Halving
from flowzoo.training.job import scoring_bar, set_preempted, write_density
from flowzoo.training.rungs import is_stopped


@shielded
def train_and_score_stack(cfgs: Sequence[DictConfig]) -> None:
    """Trains all runs of a group (flowzoo/runs/grouping.py) together to the last step, then scores them together.

    Each run ends in its own folder as if it had been trained alone. Finished runs and those that another process trains
    are left out. Raises Interrupted after a signal, once everything is saved.
    """
    check_optimizer(cfgs[0], stacked=True)  # before anything is written
    console = Console()
    torch.compiler.reset()
    # before any folder is made: of what is refused here nothing is written
    train, val = stoppable(sources_of)(cfgs[0])
    with ExitStack() as locks:
        chosen: list[tuple[DictConfig, Run]] = []
        for cfg in cfgs:
            run = Run.create(cfg)
            try:
                locks.enter_context(run.lock())
            except RunBusy as error:
                console.print(str(error), highlight=False, soft_wrap=True)
                continue
            if run.state not in FINISHED and not is_stopped(cfg, run):
                run.set_config(cfg)
                run.set_status("running", steps=cfg.trainer.steps)
                chosen.append((cfg, run))
        if not chosen:
            return
        try:
            stoppable(_train_and_score)([cfg for cfg, _ in chosen], [run for _, run in chosen], train, val, console)
        except Interrupted:
            raise
        except KeyboardInterrupt:
            for _, run in chosen:
                set_preempted(run)
            raise Interrupted(f"{len(chosen)} runs stopped; what is saved and scored is kept") from None


def _train_and_score(cfgs: list[DictConfig], runs: list[Run], train: Source, val: Source, console: Console) -> None:
    tell(train, val, console)
    built = build_stack(cfgs, [run.path for run in runs], train)
    for run, formulation in zip(runs, built.formulation.formulations, strict=True):
        write_density(run.path / "density.csv", formulation)
    # before training: what cannot be scored is said at once
    evaluation = Evaluation(cfgs[0], built.autoencoder, built.text, val, device_of(cfgs[0]))
    halving = Halving(cfgs, runs, built, val)
    diverged, stopped, interrupted = train_to_the_end(cfgs, runs, train, val, halving)
    for i, at in stopped.items():
        runs[i].set_status("stopped", step=at)
    for i, at in diverged.items():
        Scoring(cfgs[i], runs[i], evaluation).diverged(at)
        runs[i].set_status("diverged", step=at)
        console.print(f"{runs[i].path} diverged at step {at}", highlight=False, soft_wrap=True)
    left = [i for i in range(len(runs)) if i not in diverged and i not in stopped]
    for i in left:
        runs[i].set_status("preempted" if interrupted else "running", step=step_of(runs[i]))
    if interrupted:
        raise Interrupted(f"{len(left)} runs stopped before step {cfgs[0].trainer.steps} and are saved")
    scorings = {i: Scoring(cfgs[i], runs[i], evaluation) for i in left}
    with scoring_bar(console) as progress:
        score_stack(cfgs, scorings, built, progress)
    for i in left:
        runs[i].set_status("done")


def train_to_the_end(
    cfgs: Sequence[DictConfig], runs: Sequence[Run], train: Source, val: Source, halving: Halving
) -> tuple[dict[int, int], dict[int, int], bool]:
    """The step at which runs diverged, and stopped at a rung, by their places; whether a signal ended it all.

    Runs may stand at different steps, as a kill between two files leaves them, or a run that went on alone. The ones
    furthest behind are trained up to the next, save there and are joined by those.
    """
    diverged: dict[int, int] = {}
    stopped: dict[int, int] = {}
    while True:
        at = {i: step_of(run) for i, run in enumerate(runs) if i not in diverged and i not in stopped}
        levels = sorted(set(at.values()))
        if not levels or levels[0] == cfgs[0].trainer.steps:
            return diverged, stopped, False
        group = [i for i in at if at[i] == levels[0]]
        if gone := halving.stopped(group, levels[0]):
            stopped |= dict.fromkeys(gone, levels[0])
            continue
        until = min((step for step in (*levels[1:2], halving.after(levels[0])) if step), default=None)
        some, own = [cfgs[i] for i in group], [runs[i] for i in group]
        built = build_stack(some, [run.path for run in own], train)
        outcome = fit_stack(some, own, built, train, val, levels[0], until)
        diverged |= {i: step for i, step in zip(group, outcome.diverged_at, strict=True) if step is not None}
        if outcome.interrupted:
            return diverged, stopped, True
