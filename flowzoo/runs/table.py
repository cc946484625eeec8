"""The raw rows of many runs as one table, from which all is ranked and reported once the run folders are gone.

A row a scored setting of a finished run: the columns of results.csv, what else the run's files say (`RUN_COLUMNS`), the
whole config, a key a column, and of the row's protocol what extractor.json says, as columns `protocol.*`. A table ends
in .csv or .csv.gz.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flowzoo.runs.columns import PROTOCOL, config_columns, is_key, leaves, tree
from flowzoo.runs.files import csv_text, read_bytes, regular, write_atomically
from flowzoo.runs.layout import AFTER_METRICS, BEFORE_METRICS, COLUMNS, FINISHED, RUN_COLUMNS, SETTING
from flowzoo.runs.reading import RunFolder
from flowzoo.runs.rows import lines

SUFFIXES = (".csv", ".csv.gz")
KEY = ("run", *SETTING)  # of which a table has one row

Record = dict[str, str]


class Recorded(RunFolder):
    """A run as the rows of a table tell it; its folder, and all that rows do not keep, is absent.

    Args:
        table: the file.
        records: its rows of this run, in its order.
    """

    def __init__(self, table: Path, records: Sequence[Record]) -> None:
        first = records[0]
        super().__init__(table / first["run"])
        self.records = list(records)
        self.names = set()
        self.config = tree({name: cell for name, cell in first.items() if is_key(name)})
        self.status = {key: first[key] for key in ("variant", "started", "finished", "code_version", "gpu")}
        steps = self.config.get("trainer", {}).get("steps")
        state = "diverged" if any(record["status"] == "diverged" for record in records) else "done"
        self.status |= {"state": state, "step": max(int(r["step"] or 0) for r in records), "steps": steps}
        self.rows = [{k: cell for k, cell in r.items() if k in COLUMNS or is_metric(k)} for r in records]
        self.about_data = {"fingerprint": first["data"]}
        self.extractor = {
            row["protocol"]: tree({k.removeprefix(PROTOCOL): v for k, v in row.items() if k.startswith(PROTOCOL)})
            for row in reversed(records)
        }

    @property
    def representation(self) -> str:
        return self.records[0]["representation"]


def is_metric(column: str) -> bool:
    return not (column in COLUMNS or column in RUN_COLUMNS or is_key(column) or column.startswith(PROTOCOL))


def is_raw(path: Path) -> bool:
    """Whether a CSV file has the columns of a table of raw rows, by its first line. Raises as `read`."""
    with _told(path), open(path, "rb", opener=regular) as file:
        stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        header = next(csv.reader(io.TextIOWrapper(stream, "utf-8-sig", newline="")), [])
    return set(RUN_COLUMNS) < {name.strip() for name in header}


def read(path: Path) -> tuple[list[str], list[tuple[int, Record]]]:
    """The header of a CSV file, and its rows with the numbers of their lines. A file named *.gz is uncompressed.

    Raises ValueError where it is no table, and OSError.
    """
    content = read_bytes(path)
    with _told(path):
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        reader = csv.reader(lines(content.decode("utf-8-sig")))
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, cells) for cells in reader if cells]
    for number, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"{path}, line {number}: {len(cells)} cells where the header has {len(header)}")
    if repeated := [name for name in header if header.count(name) > 1]:
        raise ValueError(f"{path} has the column {repeated[0]} twice")
    return header, [(number, dict(zip(header, cells, strict=True))) for number, cells in rows]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is not a CSV file: {error}") from None


def runs_of(path: Path) -> list[Recorded]:
    """The runs of a table of raw rows. Raises ValueError where it is none, and OSError."""
    header, rows = read(path)
    if missing := [name for name in (*COLUMNS, *RUN_COLUMNS) if name not in header]:
        raise ValueError(
            f"{path} lacks the column {missing[0]}: allowed are tables of this version's python -m analysis.join"
        )
    found: dict[str, list[Record]] = {}
    for number, row in rows:
        if row["status"] not in FINISHED or not row["run"] or not row["step"].isdigit():
            raise ValueError(f"{path}, line {number}: this is no row of a finished run")
        found.setdefault(row["run"], []).append(row)
    return [Recorded(path, records) for records in found.values()]


def records_of(run: RunFolder) -> list[Record]:
    """The rows of a finished run for a table; of one that diverged before it had any, one that says when.

    Raises ValueError where results.csv lacks a column.
    """
    if isinstance(run, Recorded):
        return run.records
    told = {
        "representation": run.representation,
        "latents": str(run.about_data.get("statistics") or ""),
        **{key: str(run.status.get(key) or "") for key in ("code_version", "gpu", "started", "finished")},
        **config_columns(run.config),
    }
    rows = run.rows
    if run.state == "diverged" and not rows:
        named = {"run": run.name, "variant": run.variant, "dataset": run.dataset, "backbone": run.backbone}
        named |= {"seed": run.seed, "step": str(run.status.get("step") or 0), "data": run.data[:8]}
        rows = [dict.fromkeys(COLUMNS, "") | named]
    if rows and (missing := [name for name in COLUMNS if name not in rows[0]]):
        raise ValueError(
            f"{run.path}: its rows lack the column {missing[0]}, as those of another version of flowzoo do; allowed "
            f"are rows with {', '.join(COLUMNS)} and metrics"
        )
    out = []
    for row in rows:
        about = run.extractor.get(row["protocol"])
        protocol = leaves(about, PROTOCOL) if isinstance(about, dict) else {}
        state = {} if row["weights"] == "init" and row["status"] else {"status": run.state}
        out.append({**row, **state, **told, **protocol})
    return out


def as_text(records: Sequence[Record]) -> str:
    """The table, the same for the same rows in any order: keys of the config that differ come before the others."""
    names = {name for record in records for name in record}
    metrics = sorted(name for name in names if is_metric(name))
    keys = sorted(name for name in names if is_key(name))
    differ = [name for name in keys if len({record.get(name, "") for record in records}) > 1]
    alike = [name for name in keys if name not in differ]
    protocol = sorted(name for name in names if name.startswith(PROTOCOL))
    header = [*BEFORE_METRICS, *metrics, *AFTER_METRICS, *RUN_COLUMNS, *differ, *alike, *protocol]
    return csv_text([header, *sorted(([r.get(name, "") for name in header] for r in records), key=_natural)])


def write(path: Path, text: str) -> None:
    """Replaces a table; whoever reads it sees the old one or the new one, whole. Raises RunError."""
    content = text.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    write_atomically(path.resolve(), lambda part: part.write_bytes(content))


def _natural(cells: Sequence[str]) -> list[tuple[float, str]]:
    return [(_number(cell), cell) for cell in cells]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("inf")
