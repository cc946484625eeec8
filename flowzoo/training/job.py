"""A run from its config to its rows of results, in whatever state an earlier attempt left it."""

import csv
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from flowzoo.build import Built, build, device_of, is_first_process, source_of, sources_of
from flowzoo.data.overview import tell
from flowzoo.data.source import Source
from flowzoo.formulation.formulation import Formulation
from flowzoo.runs.identity import run_folder
from flowzoo.runs.signals import shielded, stoppable
from flowzoo.runs.store import FINISHED, Interrupted, Run, RunError
from flowzoo.scoring import Evaluation, Scoring
from flowzoo.training.checkpoint import BEST
from flowzoo.training.fit import check_optimizer, fit, step_of
from flowzoo.training.halving import Halving
from flowzoo.training.rungs import is_stopped
from flowzoo.training.surroundings import check_here


@shielded
def train_and_score(cfg: DictConfig) -> None:
    """Trains to the last step, then scores the best checkpoint.

    With several processes the first one does everything but its share of training.
    Raises Interrupted after a signal, once everything is saved, and RunBusy where another process trains the same run.
    """
    check_here(cfg)
    check_optimizer(cfg, stacked=False)
    # Code compiled for earlier runs of this process counts against a limit, past which all is eager.
    torch.compiler.reset()
    if not is_first_process(cfg):
        stoppable(_train_a_share)(cfg)
        return
    console = Console()
    # before the folder is made: of what is refused here nothing is written
    sources = None if Run(run_folder(cfg)).is_finished else stoppable(sources_of)(cfg)
    run = Run.create(cfg)
    with run.lock():
        if sources is None or run.state in FINISHED or is_stopped(cfg, run):
            more = " (flowzoo.evaluate scores it with other solvers and settings)" if run.state == "done" else ""
            told = f"{run.path} is {run.state} already; nothing to do{more}"
            console.print(told, highlight=False, soft_wrap=True, markup=False)
            return
        run.set_config(cfg)
        run.set_status("running", steps=cfg.trainer.steps)
        try:
            stoppable(_train_and_score)(cfg, run, *sources, console)
        except Interrupted:
            raise
        except KeyboardInterrupt:
            set_preempted(run)
            raise Interrupted(f"{run.path} stopped; what is saved and scored is kept") from None


def set_preempted(run: Run) -> None:
    """Says that a run was interrupted, wherever it was: after its last word it stays what it is."""
    if run.state != "running":
        return
    at = {}
    with suppress(RunError):  # a damaged checkpoint is for the next attempt to tell
        at["step"] = step_of(run)
    run.set_status("preempted", **at)


def _train_a_share(cfg: DictConfig) -> None:
    run, (train, val) = Run(run_folder(cfg)), sources_of(cfg)
    fit(cfg, run, build(cfg, run.path, train), train, val)


def _train_and_score(cfg: DictConfig, run: Run, train: Source, val: Source, console: Console) -> None:
    tell(train, val, console)
    built = build(cfg, run.path, train)
    write_density(run.path / "density.csv", built.formulation)
    # before training: what cannot be scored is said at once
    scoring = Scoring(cfg, run, Evaluation(cfg, built.autoencoder, built.text, val, device_of(cfg)))
    halving = Halving([cfg], [run], built, val)
    while True:
        at = step_of(run)
        if halving.stopped([0], at):
            run.set_status("stopped", step=at)
            return
        until = halving.after(at)
        outcome = fit(cfg, run, built, train, val, until)
        if outcome.step != until or outcome.interrupted or outcome.diverged_at != [None]:
            break
    if outcome.interrupted:
        run.set_status("preempted", step=outcome.step)
        raise Interrupted(f"{run.path} stopped at step {outcome.step} of {cfg.trainer.steps} and is saved")
    (diverged_at,) = outcome.diverged_at
    if diverged_at is not None:
        scoring.diverged(diverged_at)
        run.set_status("diverged", step=diverged_at)
        console.print(f"{run.path} diverged at step {diverged_at}", highlight=False, soft_wrap=True)
        return
    run.set_status("running", step=outcome.step)
    built.to(device_of(cfg))
    evaluate(scoring, built, run.path / "checkpoints" / BEST, console)
    run.set_status("done", step=outcome.step)


@shielded
def score_trained(cfg: DictConfig, run: Run, checkpoint: str) -> None:
    """Scores a run that was trained before, under another protocol perhaps; adds its rows."""
    if run.state == "diverged":
        raise RunError(f"{run.path} diverged: there is nothing to score")
    with run.lock():
        stoppable(_score_trained)(cfg, run, checkpoint)


def _score_trained(cfg: DictConfig, run: Run, checkpoint: str) -> None:
    built = build(cfg, run.path)
    evaluation = Evaluation(cfg, built.autoencoder, built.text, source_of(cfg, "val"), device_of(cfg))
    scoring = Scoring(cfg, run, evaluation)
    evaluate(scoring, built, run.path / "checkpoints" / f"{checkpoint}.ckpt", Console())


def evaluate(scoring: Scoring, built: Built, checkpoint: Path, console: Console) -> None:
    """Scores what has no row yet and prints all rows."""
    with scoring_bar(console) as progress:
        rows = list(scoring.score(built, checkpoint, progress))
    table = Table("weights", "steps", "guidance", "FID", "CLIP", "seconds", title=scoring.run.path.name)
    for row in rows:
        fid = "none" if row["fid"] is None else f"{row['fid']:.2f}"
        numbers = (fid, f"{row['clip']:.4f}", f"{row['seconds']:.1f}")
        table.add_row(row["weights"], str(row["steps"]), f"{row['guidance']:g}", *numbers)
    console.print(table if rows else f"{scoring.run.path}: every setting has its row")


def scoring_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def write_density(path: Path, formulation: Formulation) -> None:
    """The timestep law as numbers, so that reports can draw it without torch: u, t, log-SNR, density of t."""
    u = torch.from_numpy((np.arange(199) + 1) / 200)
    c = formulation.coefficients(u)
    log_snr, density = 2 * (c.a / c.b).log(), formulation.density(c.t)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["u", "t", "log_snr", "density_t"])
        writer.writerows(zip(u.tolist(), c.t.tolist(), log_snr.tolist(), density.tolist(), strict=True))
