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
    each of all runs was; keys of the config named in `together` may differ all the same.

    Raises:
        ValueError: two runs have a row for the same (variant, seed, setting), or no run has a key of `together`.
    """
    records: list[tuple[str, dict[str, str]]] = []
    training = trained_with(runs, together)
    for run, trained in zip(runs, training, strict=True):
        state, source = run.state, str(run.path)
        ended = {"status": "missing" if state == "done" else state, "exception": run.exception}
        how = {"representation": run.representation, **({"training": trained} if any(training) else {})}
        own = [{**row, **how} for row in run.rows if row.get("variant")]
        for row in own:
            is_baseline = row.get("weights") == "init"
            records.append((source, row if state == "done" or is_baseline else {**row, **ended}))
        if all(row.get("weights") == "init" for row in own):
            named = {"run": run.name, "variant": run.variant, "seed": run.seed}
            where = {"dataset": run.dataset, "backbone": run.backbone, "data": run.data[:8], **how}
            records.append((source, {**named, **where, **ended}))
    return build(records)


def trained_with(runs: Sequence[RunFolder], together: Iterable[str] = ()) -> list[str]:
    """Of each run the keys of the config by which it was trained otherwise than others of its kind; "" where none is.

    Raises ValueError where no run has a key of `together`.
    """
    configs = [config_columns(run.config) for run in runs]
    known = {key for config in configs for key in config}
    if unknown := sorted(set(together) - known):
        raise ValueError(f"--together {unknown[0]}: no run has this key; allowed are {', '.join(sorted(known))}")
    kinds = [(run.dataset, run.representation, run.backbone) for run in runs]
    return trained_apart(zip(kinds, configs, strict=True), together)
