"""Searches as their trials.csv tells them: the Pareto front, and how its hypervolume grew."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from analysis.objectives import Objective
from analysis.tables import Table
from analysis.words import number
from flowzoo.runs.files import read_bytes
from flowzoo.runs.layout import DIRECTIONS, OBJECTIVES, SEARCH, TRIAL_END, TRIAL_START, TRIALS
from flowzoo.runs.reading import parse_object


@dataclass(frozen=True)
class Trial:
    number: int
    state: str
    scores: tuple[float, ...]  # a number an objective; empty where there are none
    run: str
    parameters: Mapping[str, float]


@dataclass(frozen=True)
class Search:
    """The trials of one study, by number."""

    folder: Path
    objectives: Sequence[Objective]
    parameters: Sequence[str]
    trials: Sequence[Trial]

    @classmethod
    def read(cls, path: Path) -> "Search":
        """From trials.csv, and the directions of its objectives from study.json beside it.

        Raises ValueError for a file that is no table of trials, or for an objective without a direction.
        """
        try:
            with open(path, newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                lines = list(reader)
            head, n = list(reader.fieldnames or ()), len(TRIAL_START)
            end = head.index(TRIAL_END[0])
            objectives, parameters = head[n:end], head[end + len(TRIAL_END) :]
            trials = [_trial(line, objectives, parameters) for line in lines]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"it is no table of trials: {error!r}") from error
        known = _directions(path.with_name(SEARCH))
        if strange := [name for name in objectives if known.get(name) not in DIRECTIONS]:
            raise ValueError(f"{SEARCH} beside it does not say which way {strange[0]} is better")
        return cls(path.parent, [Objective(name, known[name]) for name in objectives], parameters, trials)

    @property
    def title(self) -> str:
        return f"{self.folder.resolve().name}, a search of {', '.join(self.parameters)}"

    @cached_property
    def scored(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.scores]

    @cached_property
    def front(self) -> list[Trial]:
        """The trials that no other beats in all objectives, by the first."""
        if not self.scored:
            return []
        best = moocore.is_nondominated(self._costs, keep_weakly=True)
        pairs = zip(self.scored, self._costs.tolist(), best, strict=True)
        return [trial for trial, _, is_best in sorted(pairs, key=lambda pair: pair[1]) if is_best]

    @property
    def reference(self) -> tuple[float, ...]:
        """The worst score of all in each objective: what the hypervolume is measured from."""
        worst = self._costs.max(0)
        return tuple(o.sign * float(cost) for o, cost in zip(self.objectives, worst, strict=True))

    def history(self) -> list[tuple[int, float]]:
        """After each scored trial, by number: the hypervolume of all up to it, as a share of the last."""
        if not self.scored:
            return []
        volume = moocore.Hypervolume(ref=self._costs.max(0))
        so_far = [float(volume(self._costs[: k + 1])) for k in range(len(self.scored))]
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
                *map(number, t.scores),
                t.run,
            ]
            for t in self.front
        ]
        return Table(("Trial", *self.parameters, *(o.label for o in self.objectives), "Run"), rows)

    @cached_property
    def _costs(self) -> np.ndarray:
        """[trials, objectives], less is better."""
        signs = [objective.sign for objective in self.objectives]
        return np.array([trial.scores for trial in self.scored], dtype=float) * signs


def _directions(path: Path) -> dict[str, Any]:
    """By objective, as the study's file says; a study that was begun before it said so has the default."""
    try:
        told = parse_object(read_bytes(path).decode()).get("objectives", OBJECTIVES)
    except FileNotFoundError:
        return dict(OBJECTIVES)
    return told if isinstance(told, dict) else {}


def _trial(line: Mapping[str, str], objectives: Sequence[str], names: Sequence[str]) -> Trial:
    scores = tuple(float(line[name]) for name in objectives if line[name])
    if len(scores) not in (0, len(objectives)):
        raise ValueError(f"trial {line['number']} has {len(scores)} of {len(objectives)} scores")
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
