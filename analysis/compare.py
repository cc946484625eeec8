"""`python -m analysis.compare A B`: how the scores of shared runs and settings differ, with intervals."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.differences import Difference, Pair, differences
from analysis.objectives import Objective, about, directions
from analysis.outputs import check_file, write
from analysis.rank import add_filters, filters, load
from analysis.results import Results, natural
from analysis.tables import SUFFIXES, Table, check_suffix, document, text
from analysis.words import number, telling
from flowzoo.runs.columns import config_columns, is_training
from flowzoo.runs.files import RunError, csv_text, tell
from flowzoo.runs.finding import Found
from flowzoo.runs.layout import OBJECTIVES, SETTING
from flowzoo.runs.output import command

PROGRAM = "analysis.compare"
# What two scores must share to be compared, besides what differs within A or within B.
SHARED = ("variant", "seed", *(name for name in SETTING if name not in ("backbone", "data")))
OTHERS = ("backbone", "representation", "data")
COLUMNS = ("metric", "n_seeds", "n_settings", "a", "b", "difference", "low", "high")
ALL = "all"


class Scores(NamedTuple):
    """A scored setting of a run: what it is of, and its scores."""

    told: Mapping[str, str]
    scores: Mapping[str, float]


def scores_of(rows: Results, found: Found) -> list[Scores]:
    """The rows that could be ranked, with the training keys of their runs."""
    cells = {
        str(run.path): {key: cell for key, cell in config_columns(run.config).items() if is_training(key)}
        for run in found.runs
    }
    own = [row for row in rows.rows if row.setting and not row.is_baseline and row.status in ("", "done")]
    known = (*SHARED, *OTHERS)
    return [Scores(cells.get(r.source, {}) | {k: r.record.get(k, "") for k in known}, r.scores) for r in own]


def selected(option: str, rows: Sequence[Scores], words: Sequence[str]) -> list[Scores]:
    """The rows that have these `COLUMN=VALUE`. Raises ValueError where none has."""
    for word in words:
        column, _, value = word.partition("=")
        known = sorted({row.told[column] for row in rows if column in row.told}, key=natural)
        if not known:
            raise ValueError(f"{option} {word}: no row has such a column; allowed are {', '.join(varying(rows))}")
        rows = [row for row in rows if _same(row.told.get(column, ""), value)]
        if not rows:
            raise ValueError(f"{option} {word}: no row has it; {column} is {', '.join(known)}")
    return list(rows)


def _same(cell: str, value: str) -> bool:
    """Numbers by value."""
    (kind, number, _), (_, other, _) = natural(cell), natural(value)
    return cell == value or (kind == 0 and number == other)


def varying(rows: Sequence[Scores]) -> list[str]:
    """The columns in which rows differ."""
    names = dict.fromkeys(name for row in rows for name in row.told)
    return [name for name in names if len({row.told.get(name, "") for row in rows}) > 1]


class Comparison(NamedTuple):
    """Pairs of two lots of rows, and the columns that are constant in each and differ between the two."""

    pairs: list[Pair]
    between: dict[str, tuple[str, str]]


def compared(a: Sequence[Scores], b: Sequence[Scores], apart: Sequence[str] = ()) -> Comparison:
    """Pair rows that share `SHARED` and all that differs within either lot, but for the columns `apart`.

    Raises:
        ValueError: no two rows are a pair, or several would be.
    """
    within = [name for name in dict.fromkeys([*varying(a), *varying(b)]) if name not in SHARED]
    shared = [name for name in (*SHARED, *within) if name not in apart]
    lines = [name for name in ("variant", *within) if name in shared]
    by_key = []
    for lot in (a, b):
        keyed: dict[tuple[str, ...], Scores] = {}
        for row in lot:
            key = tuple(row.told.get(name, "") for name in shared)
            if key in keyed:
                said = ", ".join(f"{name}={value}" for name, value in zip(shared, key, strict=True) if value)
                raise ValueError(f"two rows are {said}: choose one with --include-..., --a or --b")
            keyed[key] = row
        by_key.append(keyed)
    ours, theirs = by_key
    if not (keys := [key for key in ours if key in theirs]):
        raise ValueError(_nothing_shared(shared, a, b))
    cells_of = [dict(zip(shared, key, strict=True)) for key in keys]
    first = [name for name in lines if name == "variant"]
    rest = sorted(set(lines) - {"variant"}, key=lambda name: (name not in OTHERS, len(name), name))
    told = list(dict.fromkeys([*first, *telling([*first, *rest], cells_of)]))
    pairs = []
    for key, cells in zip(keys, cells_of, strict=True):
        line = ", ".join(cells[name] if name == "variant" else f"{name}={cells[name]}" for name in told) or ALL
        where = tuple(value for name, value in cells.items() if name not in ("seed", *lines))
        pairs.append(Pair(line, cells.get("seed", ""), where, ours[key].scores, theirs[key].scores))
    between = {}
    for name in dict.fromkeys([*(n for row in (*a, *b) for n in row.told)]):
        values = [sorted({row.told.get(name, "") for row in lot}) for lot in (a, b)]
        if name not in shared and values[0] != values[1] and max(map(len, values)) == 1:
            between[name] = (values[0][0], values[1][0])
    return Comparison(pairs, between)


def _nothing_shared(shared: Sequence[str], a: Sequence[Scores], b: Sequence[Scores]) -> str:
    for name in shared:
        ours, theirs = ({row.told.get(name, "") for row in lot} for lot in (a, b))
        if not ours & theirs:
            said = (", ".join(sorted(values, key=natural)[:5]) or "nothing" for values in (ours, theirs))
            return f"no row of A and B is of the same {name}: {' and '.join(said)}"
    return f"no row of A and B is of the same {', '.join(name for name in shared if name in varying([*a, *b]))}"


def _table(found: Sequence[Difference]) -> Table:
    rows, breaks = [], []
    for at, one in enumerate(found):
        if at and one.metric.name != found[at - 1].metric.name:
            breaks.append(at)
        low, high = (f"{end:+.3g}" if end is not None else "" for end in (one.low, one.high))
        share = f"{100 * one.difference / one.a:+.1f}" if one.is_relative and one.a else ""
        rows.append([about(one.metric.name).label, one.line, str(one.n_seeds), number(one.a), number(one.b),
                     f"{one.difference:+.3g}", low, high, share, one.verdict])  # fmt: skip
    return Table(["metric", "variant", "seeds", "A", "B", "B - A", "low", "high", "%", "B is"], rows, breaks)


def _csv(found: Sequence[Difference]) -> str:
    metric, *others = COLUMNS
    lines = []
    for one in found:
        numbers = one.a, one.b, one.difference, one.low, one.high
        lines.append([one.metric.name, one.line, one.n_seeds, one.n_settings, *map(_cell, numbers)])
    return csv_text([[metric, "variant", *others], *lines])


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _notes(
    lots: Sequence[str], between: Mapping[str, tuple[str, str]], found: Sequence[Difference], left: Sequence[str]
) -> list[str]:
    """What must be known beside the table."""
    a, b = lots
    seeds, settings = max(one.n_seeds for one in found), max(one.n_settings for one in found)
    lines = [f"A: {a}", f"B: {b}"]
    if between:
        changed = (f"{name}={theirs or 'none'} instead of {ours or 'none'}" for name, (ours, theirs) in between.items())
        lines.append(f"B has {', '.join(changed)}")
    lines.append(f"means over {settings} shared setting{'s' * (settings > 1)} and {seeds} seed{'s' * (seeds > 1)}")
    if seeds == 1:
        lines.append("one seed: how sure the difference of a variant is, is not known")
    else:
        lines.append("low, high: 95 % interval of B - A over paired seeds; of 20 that are truly 0 one leaves out 0")
    if any(one.line == ALL and one.low is not None for one in found):
        lines.append(f"{ALL}: the mean of the lines above it; its interval is by how much they differ")
    if left:
        lines.append(f"left out, as they lack some shared seed or setting: {', '.join(left)}")
    return lines


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}",
        description="Compare two sweeps: differences B - A of the scores that both have of the same variant, seed and "
        "setting. With --a and --b, two parts of one.",
    )
    out.add_argument("a_path", type=Path, metavar="A", help="a folder of runs, a table of raw rows, or a CSV file")
    out.add_argument("b_path", type=Path, metavar="B", nargs="?", help="another one; A by default")
    for letter in "ab":
        out.add_argument(
            f"--{letter}", action="append", default=[], metavar="COLUMN=VALUE",
            help=f"of {letter.upper()} these rows, e.g. optimizer.lr=0.001 or variant=rf (repeat for more)",
        )  # fmt: skip
    out.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"also write the table, as the suffix says: {', '.join(SUFFIXES)}",
    )
    add_filters(out)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is one line on stderr and exit code 2."""
    args = parser().parse_args(argv)
    try:
        paths = [args.a_path, args.b_path or args.a_path]
        if args.output:
            check_file("-o", args.output, [path for path in paths if path.exists()], [("metric", "variant")])
            check_suffix("-o", args.output)
        if paths[0].resolve() == paths[1].resolve() and not (args.a and args.b):
            raise ValueError(f"{paths[0]} compared with itself: say which part is A and which B, with --a and --b")
        lots, complaints, known = [], [], dict(OBJECTIVES)
        for option, path, words in (("--a", paths[0], args.a), ("--b", paths[1], args.b)):
            rows, found = load(path)
            rows = rows.include(filters(args))
            lots.append(selected(option, scores_of(rows, found), words))
            complaints += [line for line in found.complaints() if line not in complaints]
            known |= directions(found.runs)
        comparison = compared(lots[0], lots[1], apart=[word.partition("=")[0] for word in (*args.a, *args.b)])
        shared = [name for name in rows.metrics if any(name in p.a and name in p.b for p in comparison.pairs)]
        first = [name for name in OBJECTIVES if name in shared]
        metrics = [Objective(name, known.get(name, "")) for name in dict.fromkeys([*first, *shared])]
        found_differences, left = differences(comparison.pairs, metrics, ALL)
        if not found_differences:
            raise ValueError("no metric is in the rows of both")
        sides = [", ".join([str(path), *words]) for path, words in zip(paths, (args.a, args.b), strict=True)]
        told = _notes(sides, comparison.between, found_differences, left)
        table = _table(found_differences)
        if args.output:
            write(args.output, document(args.output, PROGRAM, table, table, told, _csv(found_differences)))
    except (ValueError, OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text(table), *told, sep="\n")
    return tell(PROGRAM, complaints)


if __name__ == "__main__":
    command(main)
