"""All that was scored as one tidy data frame."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.collect import collect
from flowzoo.runs.columns import config_columns, keys_apart
from flowzoo.runs.layout import COLUMNS
from flowzoo.runs.table import is_metric

if TYPE_CHECKING:
    import pandas

# What stands first, before the swept keys.
FIRST = ("sweep", "run", "variant", "seed", "dataset", "representation", "backbone")


def frame(*places: str | Path, keys: Iterable[str] = ()) -> "pandas.DataFrame":
    """The rows of all runs in folders and tables of raw rows, one a scored setting, the untrained network's too.

    Columns: sweep (folder or table), run, variant, seed, dataset, representation, backbone; each key of training in
    which runs of one data set differ, by its dotted name; then those of results.csv, metrics among them, with the
    run's state as status. Numbers are numbers, and what a row does not have is missing. A run that diverged before it
    had rows has one.

    Args:
        places: folders of runs, and tables of `python -m analysis.join`.
        keys: further keys of the config, as `optimizer.lr`.

    Raises:
        ValueError: as `collect`; or no run has one of the keys.
    """
    import pandas  # half a second

    runs = collect(map(Path, places)).runs
    cells = [config_columns(run.config) for run in runs]
    told = keys_apart(((run.dataset,), own) for run, own in zip(runs, cells, strict=True))
    if unknown := [key for key in keys if not any(key in own for own in cells)]:
        known = sorted({key for own in cells for key in own})
        raise ValueError(f"{unknown[0]}: no run has this key; allowed are {', '.join(known)}")
    told = list(dict.fromkeys([*told, *keys]))
    records = []
    for run, own in zip(runs, cells, strict=True):
        about = {"sweep": run.path.parent.name, "run": run.name, "variant": run.variant, "seed": run.seed}
        about |= {"dataset": run.dataset, "representation": run.representation, "backbone": run.backbone}
        about |= {key: own.get(key, "") for key in told}
        rows = run.rows or ([{"step": str(run.status.get("step") or "")}] if run.state == "diverged" else [])
        for row in rows:
            rest = {name: cell for name, cell in row.items() if name in COLUMNS or is_metric(name)}
            records.append({**rest, **about, "status": run.state})
    made = pandas.DataFrame(records, columns=_ordered(records, told), dtype=object).replace("", None)
    for name in made.columns:
        with suppress(ValueError, TypeError):
            made[name] = pandas.to_numeric(made[name])
    return made


def _ordered(records: Iterable[dict[str, str]], told: Iterable[str]) -> list[str]:
    names = dict.fromkeys(name for record in records for name in record)
    return list(dict.fromkeys([*FIRST, *told, *names]))
