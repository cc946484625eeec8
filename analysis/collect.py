"""The runs below some folders, and their rows as one table of results."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.results import Results, build, natural
from analysis.words import flatten
from flowzoo.runs.finding import Found, find
from flowzoo.runs.identity import NOT_IN_HASH, comparable
from flowzoo.runs.reading import RunFolder

# What the other columns tell of a run, and what is no part of its training but how sigma_data and captions are named.
_NOT_TRAINING = tuple(
    f"{key}."
    for key in (*NOT_IN_HASH, "path", "sampler", "weighting", "variant", "seed")
    if key not in ("sigma_data", "captions")
)


def collect(roots: Iterable[Path]) -> Found:
    """Every run and search at or below the given folders; runs by name, with those of a plan that have no folder yet.

    Raises:
        ValueError: as `find`.
    """
    found = find(roots)
    found.runs.sort(key=lambda run: ([natural(part) for part in re.split(r"[-_]", run.name)], run.path))
    return found


def results(runs: Sequence[RunFolder]) -> Results:
    """The rows of all runs. The state of a run holds for its rows, and a run without rows is named without scores.

    Where runs of one variant and seed were trained differently, the column `training` says how each of all runs was.

    Raises:
        ValueError: two runs have a row for the same (variant, seed, setting).
    """
    records: list[tuple[str, dict[str, str]]] = []
    training = trained_with(runs)
    for run in runs:
        state, source = run.state, str(run.path)
        ended = {"status": "missing" if state == "done" else state, "exception": run.exception}
        how = {"training": training[run.path]} if training else {}
        own = [{**row, **how} for row in run.rows if row.get("variant")]
        for row in own:
            is_baseline = row.get("weights") == "init"
            records.append((source, row if state == "done" or is_baseline else {**row, **ended}))
        if all(row.get("weights") == "init" for row in own):
            named = {"run": run.name, "variant": run.variant, "seed": run.seed}
            where = {"dataset": run.dataset, "backbone": run.backbone, "data": run.data[:8], **how}
            records.append((source, {**named, **where, **ended}))
    return build(records)


def trained_with(runs: Sequence[RunFolder]) -> dict[Path, str]:
    """Each run's values of the config keys that alone tell runs of one variant and seed apart, by folder.

    Empty where there are no such runs; a run whose config is not there says nothing.
    """
    alike: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for run in runs:
        alike[run.variant, run.seed, run.dataset, run.backbone].append(run.path)
    if len(alike) == len(runs):  # as nearly always: no config needs to be read
        return {}
    values = {run.path: flatten(comparable(run.config)) if run.config else {} for run in runs}
    keys: set[str] = set()
    for folders in alike.values():
        some = [values[folder] for folder in folders if values[folder]]
        keys |= {name for own in some for name in own if len({other.get(name) for other in some}) > 1}
    keys = {key for key in keys if not f"{key}.".startswith(_NOT_TRAINING)}
    # A value that others are interpolated from is told once, by its shortest name.
    told = {tuple(own.get(key) for own in values.values()): key for key in sorted(keys, key=len, reverse=True)}
    return {
        folder: ", ".join(f"{key}={own[key]}" for key in sorted(told.values()) if key in own)
        for folder, own in values.items()
        if told
    }
