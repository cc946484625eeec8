"""trials.csv, one row a trial, from which reports are built; and the Pareto front on the terminal."""

import os
from collections.abc import Sequence
from pathlib import Path

from optuna.study import Study as Trials
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from flowzoo.runs.files import RunError, csv_text
from flowzoo.runs.layout import TRIAL_END, TRIAL_START

COUNTED = ("done", "diverged", "stopped")


def state_of(trial: FrozenTrial) -> str:
    """queued, running, done, diverged, stopped, failed."""
    if trial.state == TrialState.FAIL:
        return str(trial.user_attrs.get("ended", "failed"))
    return {TrialState.WAITING: "queued", TrialState.RUNNING: "running"}.get(trial.state, "done")


def counted(trials: Sequence[FrozenTrial]) -> int:
    """How many have ended with a result: scores, divergence, or an early stop."""
    return sum(state_of(trial) in COUNTED for trial in trials)


def write(path: Path, objectives: Sequence[str], parameters: Sequence[str], trials: Sequence[FrozenTrial]) -> None:
    """Replaces the table. Raises RunError."""
    rows: list[list[object]] = [[*TRIAL_START, *objectives, *TRIAL_END, *parameters]]
    for trial in trials:
        times = [t.isoformat(timespec="seconds") if t else "" for t in (trial.datetime_start, trial.datetime_complete)]
        scores = trial.values or [""] * len(objectives)
        cells = [trial.number, state_of(trial), *scores, trial.user_attrs.get("run", ""), *times]
        rows.append([*cells, *(trial.params.get(name, "") for name in parameters)])
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(csv_text(rows))
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def front(trials: Trials, objectives: Sequence[str], parameters: Sequence[str]) -> Table:
    """The trials that no other beats in all objectives, by the first."""
    table = Table("trial", *parameters, *objectives, title="Pareto front")
    for trial in sorted(trials.best_trials, key=lambda t: t.values):
        numbers = [*(trial.params[name] for name in parameters), *trial.values]
        table.add_row(str(trial.number), *(f"{number:.4g}" for number in numbers))
    return table
