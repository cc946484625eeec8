"""Which runs of a plan a command takes: a part of them, and none that a table of raw rows has already."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from flowzoo.runs.columns import config_columns
from flowzoo.runs.grouping import evenly
from flowzoo.runs.rows import rows_wanted, setting_of, settings_of
from flowzoo.runs.table import Recorded, runs_of
from sweeps.manifest import Manifest, Planned

# How a run is scored, as far as the settings of its rows do not say; no part of what its name stands for.
_SCORING = ("solver.", "evaluation.samples", "evaluation.reference", "evaluation.seed")


def add_choice(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--only",
        action="append",
        metavar="K/N|PATTERN",
        help="part K of N of the planned runs, or those with such a name, * for any letters (repeat for more)",
    )
    add_done(parser)


def add_done(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--done",
        action="append",
        default=[],
        type=Path,
        metavar="TABLE",
        help="runs that this table of python -m analysis.join has are finished (repeat for more)",
    )


def chosen(manifest: Manifest, args: Namespace, done: "Done") -> list[str]:
    """The ids of the runs that the options ask for, in the order of the plan; says how many where they leave some out.

    Raises ValueError for a part or pattern that no run has.
    """
    wanted = {planned.id for words in args.only or ["1/1"] for planned in _part(manifest, words)}
    left = [run.id for run in manifest.runs if run.id in wanted and not done.has(run)]
    if args.only or args.done:
        there = f", {len(wanted) - len(left)} of them finished in {', '.join(map(str, args.done))}" if args.done else ""
        print(f"{len(wanted)} of {len(manifest.runs)} runs{there}", flush=True)
    return left


def _part(manifest: Manifest, words: str) -> Sequence[Planned]:
    if match := re.fullmatch(r"(\d+)/(\d+)", words):
        part, parts = map(int, match.groups())
        if not 1 <= part <= parts <= len(manifest.runs):
            raise ValueError(f"--only {words}: allowed are K/N with K from 1 to N and N from 1 to {len(manifest.runs)}")
        sizes = evenly(len(manifest.runs), parts)
        start = sum(sizes[: part - 1])
        return manifest.runs[start : start + sizes[part - 1]]
    if found := [run for run in manifest.runs if fnmatchcase(run.id, words)]:
        return found
    raise ValueError(f"--only {words}: no planned run has such a name; allowed are K/N and patterns of names")


class Done:
    """The runs of tables of raw rows. Raises ValueError where one is none."""

    def __init__(self, tables: Iterable[Path]) -> None:
        self.runs: dict[str, list[Recorded]] = {}
        for path in tables:
            try:
                for run in runs_of(path):
                    self.runs.setdefault(run.name, []).append(run)
            except OSError as error:
                raise ValueError(f"--done {path}: {error.strerror}; allowed are tables of analysis.join") from None

    def of(self, planned: Planned) -> Recorded | None:
        """A planned run as the tables have it."""
        return next(iter(self.runs.get(planned.id, [])), None)

    def has(self, planned: Planned) -> bool:
        """Whether nothing of a planned run is left to do: it has diverged, or has every row that it is to have."""
        known = self.runs.get(planned.id, [])
        return any(run.state == "diverged" for run in known) or (bool(known) and not self.lacks(planned))

    def lacks(self, planned: Planned) -> int:
        """The number of rows that a planned run is to have and that no table has."""
        how = {key: cell for key, cell in config_columns(planned.config).items() if key.startswith(_SCORING)}
        evaluation = planned.config["evaluation"]
        have = {
            (row["weights"], setting_of(row, evaluation))
            for run in self.runs.get(planned.id, [])
            for row in run.records
            if row["steps"] and all(row.get(key, "") == cell for key, cell in how.items())
        }
        return len(set(rows_wanted(evaluation["weights"], settings_of(evaluation))) - have)
