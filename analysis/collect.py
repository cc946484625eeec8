"""The runs below some folders, or in tables of raw rows, and their rows as one table of results."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.results import Results, build, natural
from flowzoo.runs import table
from flowzoo.runs.columns import config_columns, trained_apart
from flowzoo.runs.finding import Found, find
from flowzoo.runs.reading import RunFolder


def collect(places: Iterable[Path]) -> Found:
    """Every run and search at or below the given folders, and the runs of tables of raw rows among these places.

    Runs by name, with those of a plan that have no folder yet.

    Raises:
        ValueError: as `find` and `table.runs_of`.
        OSError: a table cannot be read.
    """
    places = list(places)
    found = find(place for place in places if not place.is_file())
    for path in filter(Path.is_file, places):
        found.runs += table.runs_of(path)
    found.runs.sort(key=lambda run: ([natural(part) for part in re.split(r"[-_]", run.name)], run.path))
    return found


def results(runs: Sequence[RunFolder], together: Iterable[str] = ()) -> Results:
    """The rows of all runs. The state of a run holds for its rows, and a run without rows is named without scores.

    Where runs of one data set, representation and backbone were trained differently, the column `training` says how
    each of all runs was; where they lie in several sweeps, the column `sweep` says in which each does. Keys of the
    config named in `together` may differ all the same, `sweep` too.

    Raises:
        ValueError: two runs have a row for the same (variant, seed, setting), or no run has a key of `together`.
    """
    records: list[tuple[str, dict[str, str]]] = []
    training, sweeps = trained_with(runs, together), sweeps_of(runs, together)
    for run, trained, sweep in zip(runs, training, sweeps, strict=True):
        state, source = run.state, str(run.path)
        ended = {"status": "missing" if state == "done" else state, "exception": run.exception}
        how = {"representation": run.representation}
        how |= ({"training": trained} if any(training) else {}) | ({"sweep": sweep} if any(sweeps) else {})
        own = [{**row, **how} for row in run.rows if row.get("variant")]
        for row in own:
            is_baseline = row.get("weights") == "init"
            records.append((source, row if state == "done" or is_baseline else {**row, **ended}))
        if all(row.get("weights") == "init" for row in own):
            named = {"run": run.name, "variant": run.variant, "seed": run.seed}
            where = {"dataset": run.dataset, "backbone": run.backbone, "data": run.data[:8], **how}
            records.append((source, {**named, **where, **ended}))
    return build(records)


def trained_with(
    runs: Sequence[RunFolder], together: Iterable[str] = (), kinds: Sequence[tuple[str, ...]] | None = None
) -> list[str]:
    """Of each run the keys of the config by which it was trained otherwise than others of its kind; "" where none is.

    `kinds`: of each run; its data set, representation and backbone by default.

    Raises ValueError where no run has a key of `together`.
    """
    configs = [config_columns(run.config) for run in runs]
    known = {"sweep", *(key for config in configs for key in config)}
    if unknown := sorted(set(together) - known):
        raise ValueError(f"--together {unknown[0]}: no run has this key; allowed are {', '.join(sorted(known))}")
    return trained_apart(zip(kinds or map(_kind, runs), configs, strict=True), together)


def sweeps_of(runs: Sequence[RunFolder], together: Iterable[str] = ()) -> list[str]:
    """Of each run the sweep in which it lies, or its table, where several have runs of one kind; "" where none is.

    By the name of its folder, or by the whole path where two have one name.
    """
    folders = [run.path.parent for run in runs]
    where: dict[tuple[str, ...], set[Path]] = {}
    for run, folder in zip(runs, folders, strict=True):
        where.setdefault(_kind(run), set()).add(folder)
    if "sweep" in together or all(len(several) == 1 for several in where.values()):
        return [""] * len(runs)
    distinct = len({folder.name for folder in folders}) == len(set(folders))
    return [folder.name if distinct else str(folder) for folder in folders]


def _kind(run: RunFolder) -> tuple[str, ...]:
    return run.dataset, run.representation, run.backbone
