"""Where a ranking or a report may be written: never over what it is made from, nor over anything that is neither."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.tables import MARK
from flowzoo.runs.files import replace
from flowzoo.runs.layout import CONFIG, REPORT, STATUS
from flowzoo.runs.table import SUFFIXES

# Marks the page of a report: a folder with such a page holds what an earlier report wrote.
GENERATOR = '<meta name="generator" content="flowzoo analysis.report">'


def check_file(option: str, path: Path, inputs: Iterable[Path], headers: Sequence[Sequence[str]]) -> None:
    """Refuse a file that must not be overwritten, whatever link or spelling leads to it.

    A file that exists may be overwritten if its first line has the column names of one of `headers`, as the tables
    that an earlier command wrote do, or if it is no regular file, as /dev/stdout.

    Raises:
        ValueError: `path` is a folder, an input, in a run folder, or holds something else.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path}: this is a folder; allowed is the name of a file")
    if any(path.exists() and path.samefile(given) for given in inputs):
        raise ValueError(f"{option} {path}: this file is the input; allowed is another file")
    check_outside_runs(option, path)
    if path.is_file() and path.stat().st_size and not _has_header(path, headers):
        raise ValueError(
            f"{option} {path}: this file holds something other than an earlier output; allowed is a new file, "
            "or one that this option wrote before"
        )


def check_table(option: str, path: Path) -> None:
    """Refuse a table of raw rows that cannot be written; one that is there is read, which says whether it is one.

    Raises:
        ValueError: `path` is a folder, in a run folder or in none that exists, or has another suffix.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path}: this is a folder; allowed is the name of a file")
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{option} {path}: allowed are names that end in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path}: {path.parent} is no folder; allowed is a file in a folder")
    check_outside_runs(option, path)


def check_folder(option: str, folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which one of the files `names` would overwrite what is no earlier report.

    Raises:
        ValueError: `folder` is a file, in a run folder, or has one of these files from elsewhere.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{option} {folder}: this is a file; allowed is a folder")
    check_outside_runs(option, folder)
    there = [name for name in names if (folder / name).exists() or (folder / name).is_symlink()]
    if there and not _is_report(folder / REPORT):
        raise ValueError(
            f"{option} {folder}: {', '.join(there)} would be overwritten and belongs to no report; allowed is a folder "
            "without such files, or one that holds an earlier report"
        )


def check_runs(option: str, folder: Path, runs: Iterable[Path]) -> None:
    """Refuse a folder that is one of these runs, however little it holds. Raises ValueError."""
    if folder.is_dir() and any(run.is_dir() and run.samefile(folder) for run in runs):
        raise ValueError(f"{option} {folder}: this is the folder of a run; allowed is a place outside of runs")


def write(path: Path, text: str) -> None:
    """Replace a file; whoever reads it sees the old text or the new one, whole. Raises RunError or OSError."""
    if path.exists() and not path.is_file():  # a pipe or a device
        path.write_text(text, encoding="utf-8")
    else:
        replace(path.resolve(), text)


def check_outside_runs(option: str, path: Path) -> None:
    """Refuse a place in a run folder. Raises ValueError."""
    place = path.resolve()
    for folder in (place, *place.parents):
        if (folder / CONFIG).exists() and (folder / STATUS).exists():
            raise ValueError(f"{option} {path}: this is in the run folder {folder}; allowed is a place outside of runs")


def _has_header(path: Path, headers: Sequence[Sequence[str]]) -> bool:
    with path.open("rb") as file:
        head = file.readline(10_000).decode("utf-8", "replace")
    names = [name for name in re.split(r"[,\s]+", head) if name]
    return MARK in head or any(set(header) <= set(names) for header in headers)


def _is_report(page: Path) -> bool:
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return GENERATOR.encode() in file.read(4096)
