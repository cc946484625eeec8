"""V runs from their configs to their rows of results, V >= 1, in whatever state an earlier attempt left each."""

import csv
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console

from flowzoo.build import Built, build, device_of, is_first_process, source_of, sources_of
from flowzoo.data.overview import tell
from flowzoo.data.source import Source
from flowzoo.formulation.formulation import Formulation
from flowzoo.runs.identity import run_folder
from flowzoo.runs.signals import shielded, stoppable
from flowzoo.runs.store import FINISHED, Interrupted, Run, RunBusy, RunError
from flowzoo.scoring import Evaluation, Scoring
from flowzoo.scoring_loop import score, scoring_bar
from flowzoo.training.checkpoint import BEST
from flowzoo.training.fit import check_optimizer, fit, step_of
from flowzoo.training.halving import Halving
from flowzoo.training.rungs import is_stopped
from flowzoo.training.surroundings import check_here


@shielded
def train_and_score(cfgs: Sequence[DictConfig]) -> None:
    """Trains all runs of a group (flowzoo/runs/grouping.py) together to the last step, then scores their best weights.

    Each ends in its own folder as if it had been trained alone. Finished runs are left out, and of several those that
    another process trains. With several processes for one training the first one does everything but the others' share.
    Raises Refused and Unfit before anything is written, Interrupted after a signal, once everything is saved, and
    RunBusy where another process trains the only run.
    """
    check_here(cfgs[0])
    check_optimizer(cfgs[0])
    # Code compiled for earlier runs of this process counts against a limit, past which all is eager.
    torch.compiler.reset()
    if not is_first_process(cfgs[0]):
        stoppable(_train_a_share)(cfgs)
        return
    console = Console()
    finished = [Run(run_folder(cfg)).is_finished for cfg in cfgs]
    # before any folder is made: of what is refused here nothing is written
    sources = None if all(finished) else stoppable(sources_of)(cfgs[0])
    with ExitStack() as locks:
        chosen: list[tuple[DictConfig, Run]] = []
        for cfg in cfgs:
            run = Run.create(cfg)
            try:
                locks.enter_context(run.lock())
            except RunBusy as error:
                if len(cfgs) == 1:
                    raise
                say(console, str(error))
                continue
            if sources is None or run.state in FINISHED or is_stopped(cfg, run):
                if len(cfgs) == 1:
                    say(console, f"{run.path} is {run.state} already; nothing to do{_instead(run)}")
                continue
            run.set_config(cfg)
            run.set_status("running", steps=cfg.trainer.steps)
            chosen.append((cfg, run))
        if sources is None or not chosen:
            return
        runs = [run for _, run in chosen]
        try:
            stoppable(_train_and_score)([cfg for cfg, _ in chosen], runs, *sources, console)
        except Interrupted:
            raise
        except KeyboardInterrupt:
            for run in runs:
                set_preempted(run)
            raise Interrupted(f"{named(runs)} stopped; what is saved and scored is kept") from None


def _instead(run: Run) -> str:
    return " (flowzoo.evaluate scores it with other solvers and settings)" if run.state == "done" else ""


def set_preempted(run: Run) -> None:
    """Says that a run was interrupted, wherever it was: after its last word it stays what it is."""
    if run.state != "running":
        return
    at = {}
    with suppress(RunError):  # a damaged checkpoint is for the next attempt to tell
        at["step"] = step_of(run)
    run.set_status("preempted", **at)


def _train_a_share(cfgs: Sequence[DictConfig]) -> None:
    runs, (train, val) = [Run(run_folder(cfg)) for cfg in cfgs], sources_of(cfgs[0])
    train_to_the_end(cfgs, runs, build(cfgs, [run.path for run in runs], train), train, val, None)


def say(console: Console, words: str) -> None:
    console.print(words, highlight=False, soft_wrap=True, markup=False)


def named(runs: Sequence[Run]) -> str:
    return str(runs[0].path) if len(runs) == 1 else f"{len(runs)} runs"


def _train_and_score(cfgs: list[DictConfig], runs: list[Run], train: Source, val: Source, console: Console) -> None:
    tell(train, val, console)
    built = build(cfgs, [run.path for run in runs], train)
    for run, formulation in zip(runs, built.formulation.formulations, strict=True):
        write_density(run.path / "density.csv", formulation)
    # before training: what cannot be scored is said at once
    evaluation = Evaluation(cfgs[0], built.autoencoder, built.text, val, device_of(cfgs[0]))
    halving = Halving(cfgs, runs, built, val)
    diverged, stopped, interrupted = train_to_the_end(cfgs, runs, built, train, val, halving)
    for i, at in stopped.items():
        runs[i].set_status("stopped", step=at)
    for i, at in diverged.items():
        Scoring(cfgs[i], runs[i], evaluation).diverged(at)
        runs[i].set_status("diverged", step=at)
        say(console, f"{runs[i].path} diverged at step {at}")
    left = [i for i in range(len(runs)) if i not in diverged and i not in stopped]
    for i in left:
        runs[i].set_status("preempted" if interrupted else "running", step=step_of(runs[i]))
    if interrupted:
        where = f"at step {step_of(runs[left[0]])} of" if len(left) == 1 else "before step"
        saved = "is saved" if len(left) == 1 else "are saved"
        raise Interrupted(f"{named([runs[i] for i in left])} stopped {where} {cfgs[0].trainer.steps} and {saved}")
    scorings = {i: Scoring(cfgs[i], runs[i], evaluation) for i in left}
    with scoring_bar(console) as progress:
        score(scorings, built, BEST, progress)
    for i in left:
        runs[i].set_status("done")


def train_to_the_end(
    cfgs: Sequence[DictConfig], runs: Sequence[Run], built: Built, train: Source, val: Source, halving: Halving | None
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
        if halving and (gone := halving.stopped(group, levels[0])):
            stopped |= dict.fromkeys(gone, levels[0])
            continue
        rung = halving.after(levels[0]) if halving else None
        until = min((step for step in (*levels[1:2], rung) if step), default=None)
        some, own = [cfgs[i] for i in group], [runs[i] for i in group]
        outcome = fit(some, own, built.of(group), train, val, levels[0], until)
        diverged |= {i: step for i, step in zip(group, outcome.diverged_at, strict=True) if step is not None}
        if outcome.interrupted:
            return diverged, stopped, True


@shielded
def score_trained(cfg: DictConfig, run: Run, checkpoint: str) -> None:
    """Scores a run that was trained before, under another protocol perhaps; adds its rows."""
    if run.state == "diverged":
        raise RunError(f"{run.path} diverged: there is nothing to score")
    with run.lock():
        stoppable(_score_trained)(cfg, run, checkpoint)


def _score_trained(cfg: DictConfig, run: Run, checkpoint: str) -> None:
    built = build([cfg], [run.path])
    evaluation = Evaluation(cfg, built.autoencoder, built.text, source_of(cfg, "val"), device_of(cfg))
    with scoring_bar(Console()) as progress:
        score({0: Scoring(cfg, run, evaluation)}, built, f"{checkpoint}.ckpt", progress)


def write_density(path: Path, formulation: Formulation) -> None:
    """The timestep law as numbers, so that reports can draw it without torch: u, t, log-SNR, density of t."""
    u = torch.from_numpy((np.arange(199) + 1) / 200)
    c = formulation.coefficients(u)
    log_snr, density = 2 * (c.a / c.b).log(), formulation.density(c.t)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["u", "t", "log_snr", "density_t"])
        writer.writerows(zip(u.tolist(), c.t.tolist(), log_snr.tolist(), density.tolist(), strict=True))
