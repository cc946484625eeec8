"""V jobs from their parts to their rows of results, V >= 1, in whatever state an earlier attempt left each.

While a run says how it stands a signal waits (`shielded`); what takes long it interrupts (`stoppable`).
"""

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from flowzoo.autoencoders.autoencoder import Fitted
from flowzoo.autoencoders.kept import save as save_kept
from flowzoo.data.overview import tell
from flowzoo.formulation.formulation import Formulation
from flowzoo.job import Job, Stack
from flowzoo.judge import Judge
from flowzoo.runs.layout import AUTOENCODER, DATA
from flowzoo.runs.signals import shielded, stoppable
from flowzoo.runs.store import Interrupted, Run, RunBusy, RunError, data_of
from flowzoo.scoring import Scoring, score, scoring_bar
from flowzoo.training.checkpoint import BEST, last_step, set_preempted
from flowzoo.training.fit import fit
from flowzoo.training.halving import Halving
from flowzoo.training.surroundings import check_here


@shielded
def train_and_score(jobs: Sequence[Job]) -> None:
    """Trains all jobs together to the last step, then scores their best weights; what they share is said in `Stack`.

    Each ends in its own folder as if it had been trained alone. Finished runs are left out, and of several those that
    another process trains. With several processes for one training the first one does everything but the others' share.
    Raises Unfit before anything is written, Interrupted after a signal, once everything is saved, and RunBusy where
    another process trains the only run.
    """
    if not jobs:
        return
    loop = jobs[0].loop
    check_here(loop)
    # Code compiled for earlier runs of this process counts against a limit, past which all is eager.
    torch.compiler.reset()
    if not loop.is_first_process:
        stoppable(train_to_the_end)(Stack(jobs), None)
        return
    console = Console()
    gpu = torch.cuda.get_device_name(loop.device) if loop.device.type == "cuda" else None
    with ExitStack() as locks:
        chosen: list[Job] = []
        for job in jobs:
            run = job.run
            run.make(job.config, job.variant)
            try:
                locks.enter_context(run.lock())
            except RunBusy as error:
                if len(jobs) == 1:
                    raise
                say(console, str(error))
                continue
            if run.is_over(job.halving is not None):
                if len(jobs) == 1:
                    say(console, run.told_over)
                continue
            if job.config is not None:
                run.set_config(job.config)
            run.set_status("running", steps=loop.steps, gpu=gpu)
            chosen.append(job)
        if not chosen:
            return
        runs = [job.run for job in chosen]
        try:
            stoppable(_train_and_score)(chosen, console)
        except Interrupted:
            raise
        except KeyboardInterrupt:
            for run in runs:
                set_preempted(run)
            raise Interrupted(f"{named(runs)} stopped; what is saved and scored is kept") from None


def say(console: Console, words: str) -> None:
    console.print(words, highlight=False, soft_wrap=True, markup=False)


def named(runs: Sequence[Run]) -> str:
    return str(runs[0].path) if len(runs) == 1 else f"{len(runs)} runs"


def _train_and_score(jobs: Sequence[Job], console: Console) -> None:
    first = jobs[0]
    assert first.train is not None
    frozen = first.model.autoencoder.autoencoder
    # What the data are, in a few lines on the console.
    more = [("latents", frozen.told)] if isinstance(frozen, Fitted) else []
    tell(first.train, first.val, console, more + ([("GPU", first.loop.told)] if first.loop.told else []))
    for job in jobs:
        keep_data(job)
        write_density(job.run.path / "density.csv", job.model.formulation)
    stack = Stack(jobs)
    judge = Judge(first)  # before training: what cannot be scored is said at once
    diverged, stopped, interrupted = train_to_the_end(stack, Halving(stack))
    runs = stack.runs
    for i, at in stopped.items():
        runs[i].set_status("stopped", step=at)
    for i, at in diverged.items():
        Scoring(jobs[i], judge).diverged(at)
        runs[i].set_status("diverged", step=at)
        say(console, f"{runs[i].path} diverged at step {at}")
    left = [i for i in range(len(runs)) if i not in diverged and i not in stopped]
    for i in left:
        runs[i].set_status("preempted" if interrupted else "running", step=last_step(runs[i]))
    if interrupted:
        where = f"at step {last_step(runs[left[0]])} of" if len(left) == 1 else "before step"
        saved = "is saved" if len(left) == 1 else "are saved"
        raise Interrupted(f"{named([runs[i] for i in left])} stopped {where} {first.loop.steps} and {saved}")
    judge.move()
    with scoring_bar(console) as progress:
        score({i: Scoring(jobs[i], judge) for i in left}, stack, BEST, progress)
    for i in left:
        runs[i].set_status("done")


def keep_data(job: Job) -> None:
    """Writes the files by which a run recognises its images and latents. Raises RunError for other images."""
    assert job.train is not None
    before, now = data_of(job.run.path), job.train.fingerprint
    if before is None:
        if job.statistics is not None:
            save_kept(job.run.path / AUTOENCODER, job.model.autoencoder.autoencoder, job.statistics)
        job.run.write_json(DATA, {**job.about_data, "fingerprint": now})
    elif before != now:
        raise RunError(f"{job.run.path}: it was trained on other images ({before[:8]}) than these ({now[:8]})")


def train_to_the_end(stack: Stack, halving: Halving | None) -> tuple[dict[int, int], dict[int, int], bool]:
    """The step at which runs diverged, and stopped at a rung, by their places; whether a signal ended it all.

    Runs may stand at different steps, as a kill between two files leaves them, or a run that went on alone. The ones
    furthest behind are trained up to the next, save there and are joined by those.
    """
    diverged: dict[int, int] = {}
    stopped: dict[int, int] = {}
    while True:
        at = {i: last_step(run) for i, run in enumerate(stack.runs) if i not in diverged and i not in stopped}
        levels = sorted(set(at.values()))
        if not levels or levels[0] == stack.first.loop.steps:
            return diverged, stopped, False
        group = [i for i in at if at[i] == levels[0]]
        if halving and (gone := halving.stopped(group, levels[0])):
            stopped |= dict.fromkeys(gone, levels[0])
            continue
        rung = halving.after(levels[0]) if halving else None
        until = min((step for step in (*levels[1:2], rung) if step), default=None)
        outcome = fit(stack.of(group), levels[0], until)
        diverged |= {i: step for i, step in zip(group, outcome.diverged_at, strict=True) if step is not None}
        if outcome.interrupted:
            return diverged, stopped, True


@shielded
def score_trained(job: Job, checkpoint: str) -> None:
    """Scores a run that was trained before, under another protocol perhaps; adds its rows."""
    if job.run.state == "diverged":
        raise RunError(f"{job.run.path} diverged: there is nothing to score")
    with job.run.lock():
        stoppable(_score_trained)(job, checkpoint)


def _score_trained(job: Job, checkpoint: str) -> None:
    stack, judge = Stack([job]), Judge(job)
    with scoring_bar(Console()) as progress:
        score({0: Scoring(job, judge)}, stack, f"{checkpoint}.ckpt", progress)


def write_density(path: Path, formulation: Formulation) -> None:
    """The timestep law as numbers, so that reports can draw it without torch: u, t, log-SNR, density of t."""
    u = torch.from_numpy((np.arange(199) + 1) / 200)
    c = formulation.coefficients(u)
    log_snr, density = 2 * (c.a / c.b).log(), formulation.density(c.t)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["u", "t", "log_snr", "density_t"])
        writer.writerows(zip(u.tolist(), c.t.tolist(), log_snr.tolist(), density.tolist(), strict=True))
