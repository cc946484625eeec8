"""Which run folders there are: below folders, in a plan, and behind links, each once."""

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowzoo.runs.files import read_bytes
from flowzoo.runs.layout import CONFIG, PLAN, REPORT, RESULTS, STATUS, TRIALS
from flowzoo.runs.reading import RUN_NAME, RunFolder, parse_object
from flowzoo.runs.representation import representation

BEHIND_LINKS = 2  # folders that are entered behind a link: it may lead to a run, to a sweep, or to a folder of sweeps
_TOLD = ("variant", "dataset", "backbone", "steps")  # what a plan's line says of its run
_MARKS = (CONFIG, STATUS, RESULTS, REPORT, TRIALS)


def parse_plan(text: str) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """The header of plan.jsonl, its whole lines, and what is wrong with the others; "" where nothing is."""
    known: list[dict[str, Any]] = []
    wrong = ""
    for line in text.splitlines() or [""]:
        try:
            known.append(parse_object(line))
        except ValueError as error:
            known.append({})
            wrong = wrong or str(error)
    header, *lines = known
    if not wrong and header.get("runs") != len(lines):
        wrong = f"it has {len(lines)} of {header.get('runs')} runs"
    return header, [line for line in lines if line], wrong


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a sweep's folder, whether they can be read or not; no reports, none twice."""
    names: dict[Any, str] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)):
            if not entry.name.startswith(".") and (key := _folder(entry.path)):
                names.setdefault(key, entry.name)
    names.pop(_folder(folder), None)  # a link to the folder itself
    return sorted(name for name in names.values() if not _is_report(folder / name))


def _is_report(folder: Path) -> bool:
    there = [name for name in (REPORT, CONFIG, STATUS) if os.path.exists(folder / name)]
    return there == [REPORT]


def _folder(path: str | Path) -> Any:
    """What tells a folder, be it that it cannot be read, from all others, whatever it is called; None for no folder."""
    try:
        about = os.stat(path)
    except OSError:
        return os.path.abspath(path) if os.path.islink(path) else None
    return (about.st_dev, about.st_ino) if stat.S_ISDIR(about.st_mode) else None


@dataclass
class Found:
    """The runs and the searches at or below some folders, and a line for each thing else that cannot be read."""

    runs: list[RunFolder] = field(default_factory=list)
    searches: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """All that cannot be read, of what has been read so far."""
        return [*self.unreadable, *(line for run in self.runs for line in run.complaints())]


def find(roots: Iterable[Path]) -> Found:
    """Every run and search at or below the given folders, with the runs of plans there that have no folder yet.

    Links are followed: to a run, a sweep or a folder of sweeps. Whatever has several names counts once, under one
    without a link if there is one.

    Raises:
        ValueError: a root is no folder, or holds nothing that is a run or a search.
    """
    search = _Search()
    for root in roots:
        search.enter(root)
    return search.done()


class _Search:
    def __init__(self) -> None:
        self.found = Found()
        self.todo: list[tuple[Path, int | None]] = []  # with how many folders deeper to go; None: all
        self.links: list[tuple[Path, int]] = []
        self.seen: set[Any] = set()
        self.runs: dict[Any, Path] = {}
        self.names: dict[Any, set[str]] = {}  # of what lies in them
        self.planned: dict[Path, Mapping[str, Any]] = {}

    def enter(self, root: Path) -> None:
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder of runs")
        known = _folder(root) in self.seen
        before = len(self.runs) + len(self.planned) + len(self.found.searches)
        self.todo.append((root, None))
        while self.todo or self.links:  # what lies here before what links lead to
            self._look(*(self.todo.pop() if self.todo else self.links.pop(0)))
        if not known and before == len(self.runs) + len(self.planned) + len(self.found.searches):
            marks = "config.yaml, status.json or results.csv"
            raise ValueError("; ".join([f"{root} holds no run: no folder in it has a {marks}", *self.found.unreadable]))

    def done(self) -> Found:
        for folder in self.planned:
            self.runs[_folder(folder) or os.path.abspath(folder)] = folder
        for key, folder in self.runs.items():
            run = RunFolder(folder, self.planned.get(folder))
            if key in self.names:
                run.names = self.names[key]
            self.found.runs.append(run)
        self.found.searches.sort()
        return self.found

    def _look(self, place: Path, deeper: int | None) -> None:
        if (key := _folder(place)) in self.seen:
            return
        self.seen.add(key)
        try:
            if deeper == 0:  # it may be large
                names = {name for name in _MARKS if os.path.exists(place / name)}
            else:
                names = self.names[key] = set(os.listdir(place))
        except OSError as error:
            self._cannot(place, key, error.strerror or str(error))
            return
        if TRIALS in names:  # its runs are points of its own section, not variants to rank
            self.found.searches.append(place)
        elif {CONFIG, STATUS} & names or (RESULTS in names and REPORT not in names):
            self.runs[key] = place
        elif deeper != 0:
            if PLAN in names:
                self._plan(place)
            for name in sorted(names):
                self._enter(place / name, deeper)

    def _enter(self, path: Path, deeper: int | None) -> None:
        if path.name.startswith("."):
            return
        if os.path.islink(path):
            if not os.path.exists(path):
                self._cannot(path, _folder(path), f"it is a link to {os.readlink(path)}, which cannot be followed")
            elif os.path.isdir(path):
                self.links.append((path, BEHIND_LINKS if deeper is None else deeper - 1))
        elif os.path.isdir(path):
            self.todo.append((path, None if deeper is None else deeper - 1))

    def _cannot(self, path: Path, key: Any, why: str) -> None:
        if RUN_NAME.match(path.name):
            self.runs[key] = path  # which says itself that it cannot be read
        else:
            self.found.unreadable.append(f"cannot read {path}: {why}")

    def _plan(self, place: Path) -> None:
        try:
            _, lines, wrong = parse_plan(read_bytes(place / PLAN).decode())
        except (OSError, UnicodeDecodeError) as error:
            lines, wrong = [], str(error)
        if wrong:
            self.found.unreadable.append(f"cannot read {place / PLAN}: {wrong}")
        for line in lines:
            if isinstance(line.get("id"), str):
                told = {key: line.get(key) for key in _TOLD}
                config = line.get("config")
                seen = representation(config, {}) if isinstance(config, dict) else ""
                self.planned[place / line["id"]] = told | {"representation": seen}
