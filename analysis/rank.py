"""`python -m analysis.rank FILE.csv`: rank formulations by FID and CLIP score, as the paper does, or others."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.collect import collect, results
from analysis.objectives import DEFAULT, about, chosen, listed
from analysis.outputs import check_file, write
from analysis.ranking import Entry, Ranking, Score, rank
from analysis.results import GROUP, SETTING, Results, read
from flowzoo.runs import table
from flowzoo.runs.files import RunError, csv_text, tell
from flowzoo.runs.finding import Found
from flowzoo.runs.output import command

RANK_COLUMNS = ("variant", "rank_all", "rank_5_steps", "rank_50_steps", "rank_50_all", "n_settings")
# what several seeds add, in CSV followed by scores: means over settings, of seeds that have all of them
SEED_COLUMNS = ("place", "rank_all_low", "rank_all_high", "n_seeds")
SEED_COLUMNS_CSV = ("rank_all_se", "n_seeds", "rank_all_low", "rank_all_high", "place", "ties")
SCORE_COLUMNS = ("variant", "front", "n_seeds")  # around the scores
FILTERS = ("variant", *SETTING, "seed")


def columns(ranking: Ranking) -> tuple[str, ...]:
    """The columns of a printed ranking; those about seeds only where there are several."""
    return RANK_COLUMNS + (SEED_COLUMNS if len(ranking.seeds) > 1 else ())


def as_csv(ranking: Ranking) -> str:
    """The ranking for programs: numbers with six decimals at most, an empty cell where there is none."""
    has_seeds = len(ranking.seeds) > 1
    names = RANK_COLUMNS + (SEED_COLUMNS_CSV if has_seeds else ())
    rows = []
    for entry in ranking.entries:
        row = dict(vars(entry), ties=len(entry.ties) if entry.place else None)
        scores = _scores(ranking, entry.mean) if has_seeds else ()
        rows.append([_cell(cell) for cell in (*(row[name] for name in names), *scores)])
    return csv_text([(*names, *(_score_names(ranking) if has_seeds else ())), *rows])


def scores_as_csv(ranking: Ranking, results: Results) -> str:
    """Every variant's scores in every setting, averaged over its seeds, with its front there, for programs."""
    first, second, last = SCORE_COLUMNS
    rows: list[Sequence[str]] = [(*results.columns, first, second, *_score_names(ranking), last)]
    for setting in ranking.settings:
        front = ranking.fronts[setting]
        scores = ranking.scores[setting]
        for variant in sorted(scores, key=lambda v: (front[v] is None, front[v] or 0, v)):
            score = scores[variant]
            cells = (front[variant], *_scores(ranking, score), score.n)
            rows.append([*setting, variant, *map(_cell, cells)])
    return csv_text(rows)


def _score_names(ranking: Ranking) -> list[str]:
    return [column for name in ranking.metrics for column in (name, f"{name}_se")]


def _scores(ranking: Ranking, score: Score | None) -> list[float | None]:
    """The cells of `_score_names`."""
    if score is None:
        return [None] * (2 * len(ranking.metrics))
    return [number for name in ranking.metrics for number in (score.mean.get(name), score.se.get(name))]


def as_text(ranking: Ranking, results: Results) -> str:
    """The ranking for people: a table, then what has no rank and why."""
    names, places = columns(ranking), ranking.places
    rows = [
        [places.get(entry.variant, "") if name == "place" else text_cell(entry, name) for name in names]
        for entry in ranking.ranked
    ]
    widths = [max(map(len, cells)) for cells in zip(names, *rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in (names, *rows)
    ]
    return "\n".join([*lines, *notes(ranking, results)]) + "\n"


def text_cell(entry: Entry, name: str) -> str:
    value = getattr(entry, name)
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)


def notes(ranking: Ranking, results: Results) -> list[str]:
    """What a reader must know beside the table."""
    lines = []
    if len(ranking.seeds) == 1:
        lines.append("; ".join(["one seed: no intervals", *noise(ranking)]))
    elif any(entry.place is not None for entry in ranking.ranked):
        lines.append(
            "place: 1 + how many rank before it beyond the noise of seeds, so equal places (=) are ties; low and high: "
            "95 % interval"
        )
    elif len(ranking.ranked) > 1:
        lines.append("no intervals: seeds differ in their settings, or fewer than two variants are scored in all")
    if diverged := [entry.variant for entry in ranking.ranked if entry.diverged]:
        lines.append(f"diverged, last front + 1: {', '.join(diverged)}")
    if ranking.unranked:
        lines.append(f"not ranked ({len(ranking.unranked)}):")
        lines += [f"  {entry.variant}: {entry.reason}" for entry in ranking.unranked]
    if not ranking.ranked:
        varying = [name for name in (*GROUP, "seed") if len(results.values(name)) > 1]
        lines.append(f"no variant has all {len(ranking.settings)} settings of every seed; choose some with --include-…")
        lines += [f"  --include-{name}: {', '.join(results.values(name))}" for name in varying]
    return lines


def noise(ranking: Ranking) -> list[str]:
    """What is known of the noise of one seed."""
    return [text for objective in ranking.objectives if (text := about(objective.name).noise)]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{round(value, 6):.12g}"
    return "" if value is None else str(value)


def load(path: Path, together: Sequence[str] = ()) -> tuple[Results, Found]:
    """Results of a CSV file, or of every run below a folder or in a table of raw rows, and these runs.

    `together` as `collect.results`; of no meaning where it is any other table.

    Raises:
        ValueError: there is no such file, or its rows are not usable.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a CSV file or a folder of runs")
    if not path.is_dir() and not table.is_raw(table.read(path)[0]):
        if together:
            raise ValueError(f"--together {together[0]}: {path} does not say how runs were trained")
        return read(path), Found()
    found = collect([path])
    if not found.runs:
        raise ValueError(f"{path} holds searches and no other runs; python -m analysis.report shows them")
    return results(found.runs, together), found


def add_filters(parser: argparse.ArgumentParser) -> None:
    """The options `--include-variant PATTERN`, `--include-steps VALUE` and so on, for `filters`, and `--together`."""
    for name in FILTERS:
        parser.add_argument(
            f"--include-{name}",
            action="append",
            metavar="VALUE",
            help=f"only this {name}, * for any letters (repeat for more)",
        )
    parser.add_argument(
        "--together",
        action="append",
        default=[],
        metavar="KEY",
        help="rank runs together that differ in this key of their config, e.g. optimizer.lr (repeat for more)",
    )


def add_objectives(parser: argparse.ArgumentParser) -> None:
    """The option `--objectives`, for `objectives.chosen`."""
    parser.add_argument(
        "--objectives",
        metavar="NAME:DIRECTION,...",
        help="two or more metrics of the rows, each with min or max for what is better; by default "
        + ",".join(f"{objective.name}:{objective.direction}" for objective in DEFAULT),
    )


def filters(args: argparse.Namespace) -> Mapping[str, Sequence[str]]:
    """What the options ask for, for `Results.include`."""
    return {name: given for name in FILTERS if (given := getattr(args, f"include_{name}"))}


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m analysis.rank",
        description=f"Rank formulations: means over seeds, non-dominated sorting on {listed(o.said for o in DEFAULT)}, "
        "or on other --objectives, within each setting, then the average front over settings. Front 1 is best.",
    )
    out.add_argument(
        "file", type=Path, help="CSV with columns variant, metrics and settings (also .csv.gz), or a folder of runs"
    )
    out.add_argument("--csv", action="store_true", help="print CSV instead of a table for people")
    out.add_argument("--scores", type=Path, metavar="FILE", help="also write means, errors and fronts by setting")
    out.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="also keep what is printed (CSV if FILE is .csv)"
    )
    add_objectives(out)
    add_filters(out)
    return out


def _check_outputs(args: argparse.Namespace) -> None:
    """Raises ValueError for an output that must not be written."""
    if args.output and args.scores and args.output.resolve() == args.scores.resolve():
        raise ValueError(f"--scores {args.scores}: this is the file of -o; allowed is another file")
    for option, path, header in (("-o", args.output, RANK_COLUMNS), ("--scores", args.scores, SCORE_COLUMNS)):
        if path:
            check_file(option, path, [args.file] if args.file.exists() else [], [header])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is one line on stderr and exit code 2.

    What cannot be read is a line each, and exit code 1: the ranking is of the rest.
    """
    args = parser().parse_args(argv)
    try:
        _check_outputs(args)
        rows, found = load(args.file, args.together)
        rows = rows.include(filters(args))
        ranking = rank(rows, chosen(args.objectives, rows, found.runs))
        text = as_csv(ranking) if args.csv else as_text(ranking, rows)
        if args.output:
            write(args.output, as_csv(ranking) if args.output.suffix == ".csv" else text)
        if args.scores:
            write(args.scores, scores_as_csv(ranking, rows))
    except (ValueError, OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(text)
    if args.csv and (told := notes(ranking, rows)):
        print(*told, sep="\n", file=sys.stderr)
    return tell("analysis.rank", found.complaints())


if __name__ == "__main__":
    command(main)
