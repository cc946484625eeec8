"""`python -m analysis.join OUT.csv.gz INPUTS...`: the rows of runs on several machines as one table of raw rows."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from analysis.collect import collect
from analysis.outputs import check_table
from flowzoo.runs import table
from flowzoo.runs.columns import is_key
from flowzoo.runs.files import RunError, tell
from flowzoo.runs.layout import FINISHED
from flowzoo.runs.output import command
from flowzoo.runs.table import Record

# Of images that are the same wherever they lie, and however they are read, the config differs in these.
PLACES = ("data.source.path", "data.source.val_path", "data.cache", "data.workers")


def joined(rows: Iterable[tuple[str, Record]]) -> list[Record]:
    """The rows of all inputs, each once, whatever their order. A row comes with the name of where it is from.

    Raises ValueError where two rows of one run and setting differ, and where rows that should be of one protocol, of
    the same images or of the same latents are not.
    """
    found: dict[tuple[str, ...], tuple[str, Record]] = {}
    for source, row in rows:
        where, other = found.setdefault(tuple(row[name] for name in table.KEY), (source, row))
        if differing := [name for name in sorted({*row, *other}) if row.get(name, "") != other.get(name, "")]:
            name = differing[0]
            raise ValueError(
                f"{row['run']}: two rows for {_setting(row)}, with {name} {other.get(name) or 'empty'} ({where}) and "
                f"{row.get(name) or 'empty'} ({source}); allowed is one"
            )
    everything = list(found.values())
    _agree(everything, "data", "images", _images)
    _agree(everything, "latents", "latents", _latents)
    _agree(everything, "protocol", "protocol", _latents)
    return [row for _, row in everything]


def _agree(rows: Sequence[tuple[str, Record]], column: str, what: str, kind: Callable[[Record], tuple]) -> None:
    """Raises ValueError where rows of one kind differ in a column; an empty cell says nothing."""
    first: dict[tuple, tuple[str, Record]] = {}
    for source, row in rows:
        if not row[column]:
            continue
        where, other = first.setdefault(kind(row), (source, row))
        if row[column] != other[column]:
            seen = f"{row['dataset']} {row['representation']}".strip()
            raise ValueError(
                f"{column} of {seen} is {other[column]} for {other['run']} ({where}) and {row[column]} for "
                f"{row['run']} ({source}): allowed are the same {what} in all rows of a table"
            )


def _images(row: Record) -> tuple:
    return row["dataset"], *(item for item in _keys(row, "data.") if item[0] not in PLACES), row.get("captions")


def _latents(row: Record) -> tuple:
    return row["data"], row["representation"], *_images(row), *_keys(row, "autoencoder.")


def _keys(row: Record, prefix: str) -> tuple:
    return tuple(
        sorted((name, cell) for name, cell in row.items() if is_key(name) and name.startswith(prefix) and cell)
    )


def _setting(row: Record) -> str:
    names = ("weights", "rule", "grid", "steps", "guidance", "protocol")
    return ", ".join(f"{name}={row[name]}" for name in names if row[name]) or "the run as a whole"


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m analysis.join",
        description="Write the rows of all finished runs into one table: a row a scored setting, with everything that "
        "the run's files say. Where OUT is there, its rows stay and others are added.",
    )
    out.add_argument("out", type=Path, metavar="OUT", help="the table, .csv or .csv.gz")
    out.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="folders of runs, and earlier tables")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is one line on stderr and exit code 2.

    What cannot be read is a line each, and exit code 1: the table is of the rest.
    """
    args = parser().parse_args(argv)
    try:
        check_table("OUT", args.out)
        places = list(dict.fromkeys([args.out] * args.out.exists() + args.inputs))
        if absent := [place for place in places if not place.exists()]:
            raise ValueError(f"{absent[0]} does not exist; allowed are folders of runs and tables of this command")
        found = collect(places)
        finished = [run for run in found.runs if run.state in FINISHED and not run.complaints()]
        rows = joined((str(run.path), record) for run in finished for record in table.records_of(run))
        if not rows:
            raise ValueError(f"no run is finished in {', '.join(map(str, args.inputs))}")
        table.write(args.out, table.as_text(rows))
    except (ValueError, OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {_told(rows)}")
    if left := Counter(run.state for run in found.runs if run.state not in FINISHED):
        print(f"left out, as they are not finished: {', '.join(f'{n} {state}' for state, n in sorted(left.items()))}")
    return tell("analysis.join", found.complaints())


def _told(rows: Sequence[Record]) -> str:
    runs = {row["run"]: row["status"] for row in rows if row["weights"] != "init"}
    diverged = sum(status == "diverged" for status in runs.values())
    return f"{len(rows):,} rows of {len(runs):,} runs" + f", of which {diverged} diverged" * bool(diverged)


if __name__ == "__main__":
    command(main)
