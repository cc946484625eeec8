"""Result rows as every part of the analysis sees them: read from CSV, checked, with settings in one spelling."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from flowzoo.runs import layout, table
from flowzoo.runs.layout import ALL_STATES, FINISHED
from flowzoo.runs.rows import metrics_of

SETTING = (*layout.SETTING, "representation", "training", "sweep")
# Known before anything is scored; all that a run without scores names.
RUN_LEVEL = ("dataset", "representation", "backbone", "data", "training", "sweep")
# of which scores must agree to be compared at all
GROUP = ("dataset", "representation", "backbone", "protocol", "training", "data", "sweep")
NUMERIC_SETTING = ("shift", "steps", "guidance")
ADDED = ("representation", "training", "sweep", "exception")  # columns that `analysis.collect` adds to those of runs
UNFINISHED = tuple(state for state in ALL_STATES if state not in FINISHED)


@dataclass(frozen=True)
class Row:
    """One scored setting of one run; `setting` is None where a run is named without any score."""

    variant: str
    seed: str
    setting: tuple[str, ...] | None
    run_level: tuple[str, ...]
    scores: Mapping[str, float]  # by metric; an empty cell is absent
    status: str
    source: str
    record: Mapping[str, str] = field(repr=False)

    @property
    def is_baseline(self) -> bool:
        """The untrained network, shown beside the variants and never ranked."""
        return self.record.get("weights") == "init"

    def has(self, metrics: Iterable[str]) -> bool:
        """Whether all of these are finite."""
        return self.setting is not None and all(math.isfinite(self.scores.get(name, math.nan)) for name in metrics)

    def is_ranked(self, metrics: Iterable[str]) -> bool:
        """Finite scores of a run that did not diverge, fail or stop."""
        ended_well = self.status != "diverged" and self.status not in UNFINISHED
        return ended_well and not self.is_baseline and self.has(metrics)


@dataclass(frozen=True)
class Results:
    """Rows, the setting columns that they have, in the order of `SETTING`, and their metrics."""

    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: list[Row]

    def describe(self, setting: Sequence[str]) -> str:
        return ", ".join(f"{c}={v}" for c, v in zip(self.columns, setting, strict=True) if v) or "the only setting"

    def check_numbers(self, names: Iterable[str]) -> None:
        """Raises ValueError where one of these names is a column of something other than numbers."""
        for name in set(names) - set(self.metrics) - set(layout.COLUMNS):
            for row in self.rows:
                _number(name, row.record.get(name, ""), row.source)

    def shown(self, objectives: Sequence[str]) -> tuple[str, ...]:
        """The objectives, then the other metrics of which there are numbers."""
        others = (name for name in self.metrics if any(row.has([name]) for row in self.rows))
        return tuple(dict.fromkeys([*objectives, *others]))

    def values(self, column: str) -> list[str]:
        """Distinct values of a column, numbers in numeric order."""
        return sorted({value for row in self.rows if (value := row.record.get(column))}, key=natural)

    def include(self, wanted: Mapping[str, Sequence[str]]) -> "Results":
        """The rows whose columns match one of the wanted values: numbers by value, words as glob patterns.

        Raises:
            ValueError: a column is absent or none of its rows has a wanted value.
        """
        rows = self.rows
        for column, asked in wanted.items():
            if not any(column in row.record for row in self.rows):
                raise ValueError(f"cannot include by {column}: there is no such column")
            known, kept = self.values(column), set()
            for pattern in (_canonical(column, value, f"--include-{column}") for value in asked):
                if not (matching := [value for value in known if value == pattern or fnmatchcase(value, pattern)]):
                    raise ValueError(f"{column}={pattern} does not occur; {column} has {', '.join(known)}")
                kept.update(matching)
            # a run without scores says only what is known before: kept, it is reported as not ranked
            rows = [row for row in rows if (got := row.record.get(column, "")) in kept or not (got or row.setting)]
        return Results(self.columns, self.metrics, rows)


def apart(results: Results, columns: Sequence[str]) -> list[tuple[tuple[str, ...], Results]]:
    """The rows by what they have in these columns. A run without scores joins every part that it may belong to."""
    indices = [results.columns.index(name) if name in results.columns else None for name in columns]
    keyed = [
        (row, tuple("" if i is None or row.setting is None else row.setting[i] for i in indices))
        for row in results.rows
    ]
    keys = sorted({key for row, key in keyed if row.setting is not None}) or [("",) * len(columns)]
    parts = []
    for key in keys:
        rows = [r for r, own in keyed if own == key or (r.setting is None and belongs(r.run_level, key, columns))]
        parts.append((key, Results(results.columns, results.metrics, rows)))
    return parts


def belongs(run_level: Sequence[str], where: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether a run of which so much is known should have scores there; an empty cell says nothing."""
    there = dict(zip(columns, where, strict=True))
    return all(not own or there.get(name, own) == own for name, own in zip(RUN_LEVEL, run_level, strict=True))


def natural(text: str) -> tuple[int, float, str]:
    """Sort key: numbers by value, before words."""
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def read(path: Path) -> Results:
    """Results of a CSV file with columns variant, some metrics, and any of `SETTING`, seed and status.

    Raises:
        ValueError: not a readable table, a missing column, or a cell that is no number, naming the line.
    """
    header, rows = table.read(path)
    if not header:
        raise ValueError(f"{path} is empty: expected a header with variant, metrics and setting columns")
    if "variant" not in header:
        raise ValueError(f"{path} has no column variant; it has {', '.join(header)}")
    if not rows:
        raise ValueError(f"{path} has a header and no rows")
    return build((f"{path.name}, line {number}", record) for number, record in rows)


def build(records: Iterable[tuple[str, Mapping[str, str]]]) -> Results:
    """Results from (source, record) pairs; a record maps column names to text, `source` names it in messages.

    Columns that no run has but as a metric, and that hold numbers alone, are metrics.

    Raises:
        ValueError: an empty variant, a setting that is no number, or two rows for one (variant, seed, setting).
    """
    stripped = [(source, {key: value.strip() for key, value in record.items()}) for source, record in records]
    columns = tuple(name for name in SETTING if any(name in record for _, record in stripped))
    names = metrics_of(dict.fromkeys(name for _, record in stripped for name in record if name not in ADDED))
    metrics = tuple(name for name in names if all(_is_number(record.get(name, "")) for _, record in stripped))
    rows = [_row(source, record, columns, metrics) for source, record in stripped]
    results = Results(columns, metrics, rows)
    first: dict[tuple[str, str, tuple[str, ...]], Row] = {}
    for row in rows:
        if row.setting is None:
            continue
        other = first.setdefault((row.variant, row.seed, row.setting), row)
        if other is not row:
            seed = f", seed {row.seed}" if row.seed else ""
            raise ValueError(
                f"two rows for {row.variant}{seed}, {results.describe(row.setting)}: {other.source} and {row.source}"
            )
    return results


def _row(source: str, record: dict[str, str], columns: tuple[str, ...], metrics: tuple[str, ...]) -> Row:
    for column in (*NUMERIC_SETTING, "seed"):
        if column in record:
            record[column] = _canonical(column, record[column], source)
    if not record.get("variant"):
        raise ValueError(f"{source}: the variant is empty")
    setting = tuple(record.get(name, "") for name in columns)
    scores = {name: float(record[name]) for name in metrics if record.get(name)}
    says_where = any(value for name, value in zip(columns, setting, strict=True) if name not in RUN_LEVEL)
    unscored = all(map(math.isnan, scores.values())) and not says_where
    return Row(
        variant=record["variant"],
        seed=record.get("seed", ""),
        setting=None if unscored else setting,
        run_level=tuple(record.get(name, "") for name in RUN_LEVEL),
        scores=scores,
        status=record.get("status", "").lower(),
        source=source,
        record=record,
    )


def _number(column: str, text: str, source: str) -> float:
    """The cell as a number; an empty cell is NaN: not measured."""
    try:
        return float(text) if text else math.nan
    except ValueError:
        raise ValueError(f"{source}: {column} is {text!r}, not a number") from None


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True


def _canonical(column: str, text: str, source: str) -> str:
    """One spelling a value: 5, 5.0 and 5.00 are the same guidance."""
    if column not in NUMERIC_SETTING and column != "seed":
        return text
    return f"{_number(column, text, source):.12g}" if text else ""
