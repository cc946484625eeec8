"""Searches as their trials.csv tells them: the Pareto front, and how its hypervolume grew."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import moocore
import numpy as np

from analysis.study import Table
from analysis.words import number
from flowzoo.runs.layout import TRIALS

FIXED = ("number", "state", "fid", "clip", "run", "started", "finished")  # the other columns are parameters
MAXIMISE = [False, True]  # FID, CLIP score


@dataclass(frozen=True)
class Trial:
    number: int
    state: str
    scores: tuple[float, float] | None  # FID, CLIP score
    run: str
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class Search:
    """The trials of one study, by number."""

    folder: Path
    parameters: Sequence[str]
    trials: Sequence[Trial]

    @classmethod
    def read(cls, path: Path) -> "Search":
        """Raises ValueError for a file that is no table of trials."""
        try:
            with open(path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                lines = list(reader)
            names = [name for name in reader.fieldnames or () if name not in FIXED]
            return cls(path.parent, names, [_trial(line, names) for line in lines])
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"it is no table of trials: {error!r}") from error

    @property
    def title(self) -> str:
        return f"{self.folder.resolve().name}, a search of {', '.join(self.parameters)}"

    @cached_property
    def scored(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.scores]

    @cached_property
    def front(self) -> list[Trial]:
        """The trials that no other beats in both scores, by FID."""
        if not self.scored:
            return []
        best = moocore.is_nondominated(self._points, maximise=MAXIMISE, keep_weakly=True)
        return sorted(
            (t for t, is_best in zip(self.scored, best, strict=True) if is_best), key=lambda t: t.scores or ()
        )

    @property
    def reference(self) -> tuple[float, float]:
        """The worst FID and the worst CLIP score of all: what the hypervolume is measured from."""
        return float(self._points[:, 0].max()), float(self._points[:, 1].min())

    def history(self) -> list[tuple[int, float]]:
        """After each scored trial, by number: the hypervolume of all up to it, as a share of the last."""
        if not self.scored:
            return []
        volume = moocore.Hypervolume(ref=self.reference, maximise=MAXIMISE)
        so_far = [float(volume(self._points[: k + 1])) for k in range(len(self.scored))]
        whole = so_far[-1] or 1.0
        return [(trial.number, value / whole) for trial, value in zip(self.scored, so_far, strict=True)]

    def counts(self) -> str:
        states = Counter(trial.state for trial in self.trials)
        return ", ".join(f"{n} {state}" for state, n in states.most_common())

    def table(self) -> Table:
        """The front."""
        rows = [
            [
                str(t.number),
                *(f"{t.parameters[name]:.4g}" for name in self.parameters),
                *map(number, t.scores or ()),
                t.run,
            ]
            for t in self.front
        ]
        return Table(("Trial", *self.parameters, "FID", "CLIP", "Run"), rows)

    @cached_property
    def _points(self) -> np.ndarray:
        return np.array([trial.scores for trial in self.scored], dtype=float)


def _trial(line: Mapping[str, str], names: Sequence[str]) -> Trial:
    scores = (float(line["fid"]), float(line["clip"])) if line["fid"] else None
    parameters = {name: float(line[name]) for name in names if line[name]}
    return Trial(int(line["number"]), line["state"], scores, line["run"], parameters)


def searches(folders: Iterable[Path]) -> tuple[list[Search], list[str]]:
    """The searches in these folders, and a line for each that cannot be read."""
    read, complaints = [], []
    for folder in folders:
        try:
            read.append(Search.read(folder / TRIALS))
        except (OSError, ValueError) as error:
            complaints.append(f"cannot read {folder / TRIALS}: {error}")
    return read, complaints
