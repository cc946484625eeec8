"""Runs the variants of a sweep in one process, one after another. The run folders are all that it remembers."""

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from flowzoo.runs.config import one_line
from flowzoo.runs.identity import run_folder, run_variant
from flowzoo.runs.store import FINISHED, Run, RunBusy, RunError, attempt


@dataclass(frozen=True)
class Outcome:
    run: Run
    variant: str
    seed: int
    note: str
    seconds: float | None
    failed: bool = False


def run_all(jobs: Sequence[DictConfig], task: Callable[[DictConfig], object]) -> int:
    """Calls `task` for each job that is not finished. Returns the exit code: 0, 1 with failures, 130 when interrupted.

    A failing job is recorded in its status and passed over. One that another process trains is passed over, too.
    """
    console = Console(soft_wrap=True, highlight=False)
    outcomes: list[Outcome] = []
    interrupted = False
    for number, cfg in enumerate(jobs, 1):
        run, variant = Run(run_folder(cfg)), run_variant(cfg)
        console.print(f"[{number}/{len(jobs)}] {variant}, seed {cfg.seed}", markup=False)
        start = time.monotonic()
        note, failed = "", False
        try:
            if run.state in FINISHED:
                outcomes.append(Outcome(run, variant, cfg.seed, "already there", None))
                continue
            attempt(task, cfg)
        except KeyboardInterrupt:
            interrupted, note = True, "interrupted"
        except RunBusy as error:
            note = "busy"
            console.print(str(error), markup=False)
        except Exception as error:
            failed, note = True, one_line(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            if not isinstance(error, RunError):
                traceback.print_exc()
        outcomes.append(Outcome(run, variant, cfg.seed, note, time.monotonic() - start, failed))
        if interrupted:
            break
    console.print(_table(outcomes))
    failures = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failures:
        print(f"sweeps: failed: {outcome.variant}, seed {outcome.seed}: {outcome.note}", file=sys.stderr)
    if interrupted:
        left = len(jobs) - len(outcomes) + 1
        print(f"sweeps: stopped with {left} of {len(jobs)} runs to go; the same command goes on", file=sys.stderr)
        return 130
    return 1 if failures else 0


def run_stacked(jobs: Sequence[DictConfig], task: Callable[[Sequence[DictConfig]], int]) -> int:
    """All jobs at once, `engine=stacked`. Returns the exit code of `task`, after the table of where each run stands."""
    code = task(jobs)
    outcomes = [Outcome(Run(run_folder(cfg)), run_variant(cfg), cfg.seed, "", None) for cfg in jobs]
    Console(soft_wrap=True, highlight=False).print(_table(outcomes))
    return code


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("variant", "seed", "state", "step", "seconds", "note")
    for outcome in outcomes:
        try:
            status = outcome.run.status
        except RunError as error:
            status = {"state": str(error)}
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        state, step = status.get("state", "-"), status.get("step", "-")
        table.add_row(
            outcome.variant, str(outcome.seed), str(state), str(step), seconds, "" if outcome.failed else outcome.note
        )
    return table
