"""Runs of a sweep in this process, one after another. The run folders are all that it remembers."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from types import MappingProxyType

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Column, Table

from flowzoo.runs.identity import run_folder, run_variant
from flowzoo.runs.refusal import one_line
from flowzoo.runs.signals import stoppable
from flowzoo.runs.store import FINISHED, Run, RunBusy, RunError, attempt
from sweeps.manifest import named


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
    swept: str = ""  # what it has otherwise than others of its sweep

    @property
    def name(self) -> str:
        return named(self.variant, self.swept, self.seed)


def run_one(cfg: DictConfig, task: Callable[[DictConfig], object], console: Console, swept: str = "") -> Outcome:
    """Calls `task` unless the run is finished. What it raises is recorded in the run's status and told."""
    path = run_folder(cfg)
    outcome = Outcome(path, run_variant(cfg), cfg.seed, swept=swept)
    start = time.monotonic()
    end, note = End.DONE, ""
    try:
        if Run(path).state in FINISHED:
            return replace(outcome, note="already there")
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
    return replace(outcome, end=end, note=note, seconds=time.monotonic() - start)


def run_all(
    jobs: Sequence[DictConfig], task: Callable[[DictConfig], object], swept: Mapping[str, str] = MappingProxyType({})
) -> int:
    """Calls `task` for each job that is not finished. Returns the exit code: 0, 1 with failures, 130 when interrupted.

    A failing job is recorded in its status and passed over. One that another process trains is passed over, too.
    `swept`: by the name of a run, what it has otherwise than others of its sweep.
    """
    outcomes: list[Outcome] = []
    interrupted = False
    try:
        stoppable(_run_in_turn)(jobs, task, swept, outcomes)
    except KeyboardInterrupt:
        interrupted = True
    return conclude(outcomes, len(jobs), interrupted)


def _run_in_turn(
    jobs: Sequence[DictConfig],
    task: Callable[[DictConfig], object],
    swept: Mapping[str, str],
    outcomes: list[Outcome],
) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for number, cfg in enumerate(jobs, 1):
        told = swept.get(run_folder(cfg).name, "")
        console.print(f"[{number}/{len(jobs)}] {named(run_variant(cfg), told, cfg.seed)}", markup=False)
        outcomes.append(run_one(cfg, task, console, told))
        if outcomes[-1].end is End.INTERRUPTED:
            return


def run_stacked(
    jobs: Sequence[DictConfig],
    task: Callable[[Sequence[DictConfig]], int],
    swept: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """All jobs at once, `engine=stacked`. Returns the exit code of `task`, after the table of where each run stands."""
    code = task(jobs)
    folders = map(run_folder, jobs)
    outcomes = [
        Outcome(folder, run_variant(cfg), cfg.seed, swept=swept.get(folder.name, ""))
        for folder, cfg in zip(folders, jobs, strict=True)
    ]
    _show(outcomes)
    return code


def conclude(outcomes: Sequence[Outcome], total: int, interrupted: bool = False) -> int:
    """Prints where each run stands and what failed; returns the exit code."""
    _show(outcomes)
    failures = [outcome for outcome in outcomes if outcome.end is End.FAILED]
    for outcome in failures:
        print(f"sweeps: failed: {outcome.name}: {outcome.note}", file=sys.stderr)
    stopped = sum(outcome.end is End.INTERRUPTED for outcome in outcomes)
    if interrupted or stopped:
        left = total - len(outcomes) + stopped
        print(f"sweeps: stopped with {left} of {total} runs to go; the same command goes on", file=sys.stderr)
        return 130
    return 1 if failures else 0


def _show(outcomes: Sequence[Outcome]) -> None:
    """Prints where each run stands; a file or a pipe is as wide as the table."""
    console, table = Console(soft_wrap=True, highlight=False), _table(outcomes)
    if not console.is_terminal:
        endless = console.options.update(width=9999)
        console.width = max(console.width, console.measure(table, options=endless).maximum)
    console.print(table)


def _table(outcomes: Sequence[Outcome]) -> Table:
    is_swept = any(outcome.swept for outcome in outcomes)
    column = [Column("swept", overflow="fold")] * is_swept
    table = Table("variant", *column, "seed", "state", "step", "seconds", "note")
    for outcome in outcomes:
        try:
            status = Run(outcome.path).status
        except RunError as error:
            status = {"state": str(error)}
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        state, step = status.get("state", "-"), status.get("step", "-")
        note = "" if outcome.end is End.FAILED else outcome.note
        told = [outcome.swept] * is_swept
        table.add_row(outcome.variant, *told, str(outcome.seed), str(state), str(step), seconds, note)
    return table
