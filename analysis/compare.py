"""`python -m analysis.compare A B`: how the scores of shared runs and settings differ, with intervals."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from analysis.differences import Difference, Pair, differences
from analysis.judges import alike
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
OTHERS = ("representation", "backbone", "data")
LINES = ("variant", "dataset", "protocol")  # of those shared; a line each, while settings are averaged
COLUMNS = ("metric", "n_seeds", "n_settings", "a", "b", "difference", "low", "high")
ALL = "all"


class Scores(NamedTuple):
    """A scored setting of a run: what it is of, and its scores."""

    told: Mapping[str, str]
    scores: Mapping[str, float]


def scores_of(rows: Results, found: Found, standing: Mapping[str, str] = MappingProxyType({})) -> list[Scores]:
    """The rows that could be ranked, with the training keys of their runs.

    `standing`: the protocol that stands for those of a row (`judges.alike`).
    """
    cells = {
        str(run.path): {key: cell for key, cell in config_columns(run.config).items() if is_training(key)}
        for run in found.runs
    }
    own = [row for row in rows.rows if row.setting and not row.is_baseline and row.status in ("", "done")]
    known = (*SHARED, *OTHERS)
    told = [cells.get(row.source, {}) | {name: row.record.get(name, "") for name in known} for row in own]
    for one in told:
        one["protocol"] = standing.get(one["protocol"], one["protocol"])
    return [Scores(one, row.scores) for one, row in zip(told, own, strict=True)]


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
    """Pairs of two lots of rows, and what differs between the two rows of pairs: by column all values of A and of B."""

    pairs: list[Pair]
    between: dict[str, set[tuple[str, str]]]


def compared(a: Sequence[Scores], b: Sequence[Scores], apart: Sequence[str] = ()) -> Comparison:
    """Pair rows that share `SHARED` and what else tells the rows of either lot apart, but for the columns `apart`.

    Raises:
        ValueError: no two rows are a pair, or several would be.
    """
    within = [name for name in dict.fromkeys([*varying(a), *varying(b)]) if name not in (*SHARED, *apart)]
    within.sort(key=lambda name: (name not in OTHERS, len(name), name))
    always = [name for name in SHARED if name not in apart]
    needed = [telling([*always, *within], [row.told for row in lot]) for lot in (a, b)]
    within = [name for name in within if any(name in names for names in needed)]
    shared = [*always, *within]
    ours, theirs = _keyed(a, shared), _keyed(b, shared)
    if not (keys := [key for key in ours if key in theirs]):
        raise ValueError(_nothing_shared(shared, a, b))
    cells_of = [dict(zip(shared, key, strict=True)) for key in keys]
    lines = [name for name in LINES if name in always] + within
    told = list(dict.fromkeys([*(name for name in lines if name == "variant"), *telling(lines, cells_of)]))
    pairs, between = [], dict[str, set[tuple[str, str]]]()
    for key, cells in zip(keys, cells_of, strict=True):
        line = ", ".join(cells[name] if name == "variant" else f"{name}={cells[name]}" for name in told) or ALL
        where = tuple(value for name, value in cells.items() if name not in ("seed", *lines))
        pairs.append(Pair(line, cells.get("seed", ""), where, ours[key].scores, theirs[key].scores))
        one, other = ours[key].told, theirs[key].told
        for name in dict.fromkeys([*one, *other]):
            between.setdefault(name, set()).add((one.get(name, ""), other.get(name, "")))
    differing = {name: values for name, values in between.items() if any(x != y for x, y in values)}
    return Comparison(pairs, differing)


def _keyed(lot: Sequence[Scores], columns: Sequence[str]) -> dict[tuple[str, ...], Scores]:
    """The rows by what they have in these columns. Raises ValueError where two have the same."""
    keyed: dict[tuple[str, ...], Scores] = {}
    for row in lot:
        key = tuple(row.told.get(name, "") for name in columns)
        if key in keyed:
            said = ", ".join(f"{name}={value}" for name, value in zip(columns, key, strict=True) if value)
            raise ValueError(f"two rows are {said}: choose one with --include-..., --a or --b")
        keyed[key] = row
    return keyed


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
    lots: Sequence[str], between: Mapping[str, set[tuple[str, str]]], found: Sequence[Difference], left: Sequence[str]
) -> list[str]:
    """What must be known beside the table."""
    a, b = lots
    seeds, settings = max(one.n_seeds for one in found), max(one.n_settings for one in found)
    lines = [f"A: {a}", f"B: {b}"]
    constant = {name: values for name, values in between.items() if len(values) == 1}
    if constant:
        said = [(name, *next(iter(values))) for name, values in constant.items()]
        changed = [f"{name}={other or 'none'} instead of {one or 'none'}" for name, one, other in said]
        lines.append(f"B has {', '.join(changed)}")
    if several := [name for name in between if name not in constant]:
        lines.append(f"A and B differ in {', '.join(several)}")
    lines.append(f"means over {settings} shared setting{'s' * (settings > 1)} and {seeds} seed{'s' * (seeds > 1)}")
    if seeds == 1:
        lines.append("one seed: how sure the difference of a variant is, is not known")
    else:
        lines.append("low, high: 95 % interval of B - A over paired seeds; of 20 that are truly 0 one leaves out 0")
    if any(one.line == ALL and one.low is not None for one in found):
        lines.append(f"{ALL}: the mean of the lines above it; its interval is by how much they differ")
    if left:
        lines.append(f"left out, as they lack some shared seed or setting: {'; '.join(left)}")
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
        loaded = [load(path) for path in dict.fromkeys(paths)]
        runs = [run for _, found in loaded for run in found.runs]
        standing, known = alike(runs), dict(OBJECTIVES) | directions(runs)
        whole = [scores_of(rows.include(filters(args)), found, standing) for rows, found in loaded]
        lots = [selected("--a", whole[0], args.a), selected("--b", whole[-1], args.b)]
        complaints = [line for _, found in loaded for line in found.complaints()]
        comparison = compared(lots[0], lots[1], apart=[word.partition("=")[0] for word in (*args.a, *args.b)])
        metrics_of = dict.fromkeys(name for rows, _ in loaded for name in rows.metrics)
        shared = [name for name in metrics_of if any(name in p.a and name in p.b for p in comparison.pairs)]
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
