"""Runs of a sweep in this process, one after another. The run folders are all that it remembers."""

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from flowzoo.runs.identity import run_folder, run_variant
from flowzoo.runs.refusal import one_line
from flowzoo.runs.signals import stoppable
from flowzoo.runs.store import FINISHED, Run, RunBusy, RunError, attempt


class End(Enum):
    """How this command's attempt at a run ended; DONE is whatever its status says."""

    DONE = auto()
    BUSY = auto()
    FAILED = auto()
    INTERRUPTED = auto()


@dataclass(frozen=True)
class Outcome:
    path: Path
    variant: str
    seed: int
    end: End = End.DONE
    note: str = ""
    seconds: float | None = None


def run_one(cfg: DictConfig, task: Callable[[DictConfig], object], console: Console) -> Outcome:
    """Calls `task` unless the run is finished. What it raises is recorded in the run's status and told."""
    path = run_folder(cfg)
    start = time.monotonic()
    end, note = End.DONE, ""
    try:
        if Run(path).state in FINISHED:
            return Outcome(path, run_variant(cfg), cfg.seed, note="already there")
        attempt(task, cfg)
    except KeyboardInterrupt:
        end, note = End.INTERRUPTED, "interrupted"
    except RunBusy as error:
        end, note = End.BUSY, "busy"
        console.print(str(error), markup=False)
    except RunError as error:
        end, note = End.FAILED, one_line(error)
    except Exception as error:
        end, note = End.FAILED, f"{type(error).__name__}: {error}"
        traceback.print_exc()
    return Outcome(path, run_variant(cfg), cfg.seed, end, note, time.monotonic() - start)


def run_all(jobs: Sequence[DictConfig], task: Callable[[DictConfig], object]) -> int:
    """Calls `task` for each job that is not finished. Returns the exit code: 0, 1 with failures, 130 when interrupted.

    A failing job is recorded in its status and passed over. One that another process trains is passed over, too.
    """
    outcomes: list[Outcome] = []
    interrupted = False
    try:
        stoppable(_run_in_turn)(jobs, task, outcomes)
    except KeyboardInterrupt:
        interrupted = True
    return conclude(outcomes, len(jobs), interrupted)


def _run_in_turn(jobs: Sequence[DictConfig], task: Callable[[DictConfig], object], outcomes: list[Outcome]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for number, cfg in enumerate(jobs, 1):
        console.print(f"[{number}/{len(jobs)}] {run_variant(cfg)}, seed {cfg.seed}", markup=False)
        outcomes.append(run_one(cfg, task, console))
        if outcomes[-1].end is End.INTERRUPTED:
            return


def run_stacked(jobs: Sequence[DictConfig], task: Callable[[Sequence[DictConfig]], int]) -> int:
    """All jobs at once, `engine=stacked`. Returns the exit code of `task`, after the table of where each run stands."""
    code = task(jobs)
    outcomes = [Outcome(run_folder(cfg), run_variant(cfg), cfg.seed) for cfg in jobs]
    Console(soft_wrap=True, highlight=False).print(_table(outcomes))
    return code


def conclude(outcomes: Sequence[Outcome], total: int, interrupted: bool = False) -> int:
    """Prints where each run stands and what failed; returns the exit code."""
    Console(soft_wrap=True, highlight=False).print(_table(outcomes))
    failures = [outcome for outcome in outcomes if outcome.end is End.FAILED]
    for outcome in failures:
        print(f"sweeps: failed: {outcome.variant}, seed {outcome.seed}: {outcome.note}", file=sys.stderr)
    stopped = sum(outcome.end is End.INTERRUPTED for outcome in outcomes)
    if interrupted or stopped:
        left = total - len(outcomes) + stopped
        print(f"sweeps: stopped with {left} of {total} runs to go; the same command goes on", file=sys.stderr)
        return 130
    return 1 if failures else 0


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("variant", "seed", "state", "step", "seconds", "note")
    for outcome in outcomes:
        try:
            status = Run(outcome.path).status
        except RunError as error:
            status = {"state": str(error)}
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        state, step = status.get("state", "-"), status.get("step", "-")
        note = "" if outcome.end is End.FAILED else outcome.note
        table.add_row(outcome.variant, str(outcome.seed), str(state), str(step), seconds, note)
    return table
