"""results.csv as text: a line a setting, with the columns of `layout.COLUMNS` and whatever metrics its rows bring."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from flowzoo.runs.files import csv_text
from flowzoo.runs.layout import AFTER_METRICS, BEFORE_METRICS, COLUMNS, SETTING

T = TypeVar("T", bound=Any)
REQUIRED = ("variant",)  # columns without which a table holds no results


def metrics_of(columns: Iterable[str]) -> list[str]:
    """The columns that are metrics, in their order."""
    return [name for name in columns if name not in COLUMNS]


def settings_of(evaluation: Mapping[str, Any]) -> list[tuple[int, float, str]]:
    """(steps, guidance, grid) of each setting of the config group `evaluation`; the grid is empty for the solver's own.

    Raises LookupError, TypeError and ValueError for what is no such config.
    """
    settings = [(int(one["steps"]), float(one["guidance"])) for one in evaluation["settings"]]
    return [(*setting, grid) for grid in evaluation.get("grids") or [""] for setting in settings]


def setting_of(row: Mapping[str, str], evaluation: Mapping[str, Any]) -> tuple[int, float, str]:
    """Which of `settings_of` a row as written belongs to. Raises as it."""
    return int(row["steps"]), float(row["guidance"]), row["grid"] if evaluation.get("grids") else ""


def rows_wanted(weights: Iterable[str], settings: Sequence[T]) -> list[tuple[str, T]]:
    """(weights, setting) of each row that a run is to have, by the config group `evaluation`.

    Every setting with every set of weights; the untrained network `init`, a baseline, in the shortest setting alone.
    """
    return [(one, setting) for one in weights for setting in ([min(settings)] if one == "init" else settings)]


def lines(text: str) -> Iterator[str]:
    """The lines as files have them. splitlines() would also cut at U+2028 and others, which a name may contain."""
    return io.StringIO(text, newline="")


def parse_rows(text: str) -> tuple[list[dict[str, str]], str]:
    """The whole rows of results.csv as written, and what is wrong with the others; "" where nothing is."""
    wrong = "" if text.endswith("\n") else "it is cut short"
    whole = text[: text.rfind("\n") + 1]  # even a cell of a row that is cut short may lack something
    try:
        header, *cells = list(csv.reader(lines(whole))) or [[]]
    except csv.Error as error:
        return [], f"it is no table ({error})"
    if missing := [name for name in REQUIRED if name not in header]:
        return [], wrong or f"it has no column {', '.join(missing)}"
    numbers = {name: kind for name in header if (kind := COLUMNS.get(name, float)) is not str}
    rows = []
    for line in cells:
        if len(line) != len(header):
            wrong = wrong or "it is cut short"
            continue
        row = dict(zip(header, line, strict=True))
        try:
            for name, kind in numbers.items():
                if cell := row[name]:
                    kind(cell)
        except ValueError:
            wrong = wrong or f"{name} is {cell!r} and no number"
            continue
        rows.append(row)
    return rows, wrong


def typed(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Rows of `parse_rows` with cells as `COLUMNS` says, metrics as float, and None for an empty cell.

    Raises KeyError where a fixed column is missing.
    """
    names = _columns(rows)
    return [{n: COLUMNS.get(n, float)(row[n]) if row[n] else None for n in names} for row in rows]


def merged(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a setting, the last; every row has all columns, None where it did not bring them.

    Raises ValueError for a metric whose name is no identifier or whose value is no number.
    """
    rows = list(rows)
    names = _columns(rows)
    if bad := [name for name in metrics_of(names) if not name.isidentifier()]:
        raise ValueError(f"metric {bad[0]!r}: allowed are names of letters, digits and _")
    by_setting: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        whole = {name: _cell(name, row.get(name)) for name in names}
        by_setting[tuple(whole[name] for name in SETTING)] = whole
    return list(by_setting.values())


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The file, from rows that all have the same columns."""
    names = _columns(rows)
    return csv_text([names, *([row[name] for name in names] for row in rows)])


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of a table of these rows: metrics in the order in which rows bring them."""
    metrics = metrics_of(dict.fromkeys(name for row in rows for name in row))
    return [*BEFORE_METRICS, *metrics, *AFTER_METRICS]


def _cell(name: str, value: Any) -> Any:
    try:
        return None if value is None else COLUMNS.get(name, float)(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r}: allowed in this column of results is a number") from None
