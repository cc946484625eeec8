"""trials.csv, one row a trial, from which reports are built; and the Pareto front on the terminal."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from optuna.study import Study as Trials
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from flowzoo.runs.store import RunError

TRIALS = "trials.csv"
FIXED = ("number", "state", "fid", "clip", "run", "started", "finished")  # the other columns are parameters

COUNTED = ("done", "diverged", "stopped")


def state_of(trial: FrozenTrial) -> str:
    """queued, running, done, diverged, stopped, failed."""
    if trial.state == TrialState.FAIL:
        return str(trial.user_attrs.get("ended", "failed"))
    return {TrialState.WAITING: "queued", TrialState.RUNNING: "running"}.get(trial.state, "done")


def counted(trials: Sequence[FrozenTrial]) -> int:
    """How many have ended with a result: scores, divergence, or an early stop."""
    return sum(state_of(trial) in COUNTED for trial in trials)


def write(path: Path, parameters: Sequence[str], trials: Sequence[FrozenTrial]) -> None:
    """Replaces the table. Raises RunError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FIXED, *parameters])
    for trial in trials:
        times = [t.isoformat(timespec="seconds") if t else "" for t in (trial.datetime_start, trial.datetime_complete)]
        fid, clip = trial.values or ("", "")
        cells = [trial.number, state_of(trial), fid, clip, trial.user_attrs.get("run", ""), *times]
        writer.writerow([*cells, *(trial.params.get(name, "") for name in parameters)])
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text.getvalue())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def front(trials: Trials, parameters: Sequence[str]) -> Table:
    """The trials that no other beats in both FID and CLIP score, by FID."""
    table = Table("trial", *parameters, "FID", "CLIP", title="Pareto front")
    for trial in sorted(trials.best_trials, key=lambda t: t.values):
        numbers = [f"{trial.params[name]:.4g}" for name in parameters]
        table.add_row(str(trial.number), *numbers, f"{trial.values[0]:.2f}", f"{trial.values[1]:.4f}")
    return table
