"""`python -m analysis.rank FILE.csv`: rank formulations by FID and CLIP score, as the paper does, or others."""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.best import best
from analysis.collect import collect, results
from analysis.objectives import DEFAULT, chosen, listed
from analysis.outputs import check_file, write
from analysis.ranked import RANK_COLUMNS, SCORE_COLUMNS, Ranked, as_csv, notes, plain, scores_as_csv, titled
from analysis.ranking import rank
from analysis.results import SETTING, Results, apart, read
from analysis.swept import Contender, contenders, swept_keys
from analysis.tables import SUFFIXES, Table, check_suffix, document
from flowzoo.runs import table
from flowzoo.runs.files import RunError, tell
from flowzoo.runs.finding import Found
from flowzoo.runs.output import command
from flowzoo.runs.reading import RunFolder

PROGRAM = "analysis.rank"
APART = ("training", "sweep")  # what else than a setting tells rows apart: each has a ranking of its own
FILTERS = ("variant", *SETTING, "seed")


def load(path: Path, together: Sequence[str] = ()) -> tuple[Results, Found]:
    """Results of a CSV file, or of every run below a folder or in a table of raw rows, and these runs.

    `together` as `collect.results`; of no meaning where it is any other table.

    Raises:
        ValueError: there is no such file, or its rows are not usable.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a CSV file or a folder of runs")
    if not path.is_dir() and not table.is_raw(path):
        if together:
            raise ValueError(f"--together {together[0]}: {path} does not say how runs were trained")
        return read(path), Found()
    found = collect([path])
    if not found.runs:
        raise ValueError(f"{path} holds searches and no other runs; python -m analysis.report shows them")
    return results(found.runs, together), found


def add_filters(parser: argparse.ArgumentParser) -> None:
    """The options `--include-variant PATTERN`, `--include-steps VALUE` and so on, for `filters`."""
    for name in FILTERS:
        parser.add_argument(
            f"--include-{name}",
            action="append",
            metavar="VALUE",
            help=f"only this {name}, * for any letters (repeat for more)",
        )


def add_together(parser: argparse.ArgumentParser) -> None:
    """The option `--together`, for `collect.results`."""
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
    out.add_argument(
        "--best",
        action="append",
        default=[],
        metavar="KEY",
        help="rank each variant at its best value of this swept key, e.g. optimizer.lr (repeat for more)",
    )
    out.add_argument("--csv", action="store_true", help="print CSV instead of a table for people")
    out.add_argument("--scores", type=Path, metavar="FILE", help="also write means, errors and fronts by setting")
    out.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"also write the table, as the suffix says: {', '.join(SUFFIXES)} (LaTeX with booktabs)",
    )
    add_objectives(out)
    add_filters(out)
    add_together(out)
    return out


def _check_outputs(args: argparse.Namespace) -> None:
    """Raises ValueError for an output that must not be written."""
    if args.output and args.scores and args.output.resolve() == args.scores.resolve():
        raise ValueError(f"--scores {args.scores}: this is the file of -o; allowed is another file")
    for option, path, header in (("-o", args.output, RANK_COLUMNS), ("--scores", args.scores, SCORE_COLUMNS)):
        if path:
            check_file(option, path, [args.file] if args.file.exists() else [], [header])
            check_suffix(option, path)


def rankings(rows: Results, runs: Sequence[RunFolder], args: argparse.Namespace) -> list[Ranked]:
    """What the options ask for: one ranking, or several of runs that were trained differently or in other sweeps."""
    objectives = chosen(args.objectives, rows, runs)
    named: dict[str, Contender] = {}
    if args.best:
        rows, named = contenders(rows, runs, args.best, args.together)
    columns = [name for name in APART if len(rows.values(name)) > 1]
    found = []
    for key, part in apart(rows, columns):
        told = dict(zip(columns, key, strict=True))
        if args.best:
            own = best(part, named, objectives)
            found.append(Ranked(own.ranking, own.results, told, own))
        else:
            found.append(Ranked(rank(part, objectives), part, told))
    return found


def _how_trained(ranked: Sequence[Ranked], runs: Sequence[RunFolder]) -> list[str]:
    """Why there are several rankings, and what makes one of them."""
    trained = {one.key["training"] for one in ranked if "training" in one.key}
    keys = [key for key in swept_keys(runs) if any(f"{key}=" in told for told in trained)] if trained else []
    lines = [f"trained with several {key}: --best {key} takes the best of each variant" for key in keys]
    several = len({one.key.get("sweep") for one in ranked}) > 1
    told = "several sweeps: --include-sweep NAME takes one of them, --together sweep makes them one"
    return [*lines, *[told] * several]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is one line on stderr and exit code 2.

    What cannot be read is a line each, and exit code 1: the ranking is of the rest.
    """
    args = parser().parse_args(argv)
    try:
        _check_outputs(args)
        rows, found = load(args.file, args.together)
        rows = rows.include(filters(args))
        ranked = rankings(rows, found.runs, args)
        told, text = [*notes(ranked), *_how_trained(ranked, found.runs)], as_csv(ranked)
        if not args.csv:
            text = document(Path(), PROGRAM, plain(ranked), titled(ranked), told, text)
        if args.output:
            whole = document(args.output, PROGRAM, plain(ranked), titled(ranked), told, as_csv(ranked))
            write(args.output, text if args.output.suffix not in SUFFIXES else whole)
        if args.scores:
            scores = scores_as_csv(ranked)
            header, *lines = csv.reader(io.StringIO(scores))
            table = Table(header, lines)
            write(args.scores, document(args.scores, PROGRAM, table, table, [], scores))
    except (ValueError, OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(text)
    if args.csv and told:
        print(*told, sep="\n", file=sys.stderr)
    return tell(PROGRAM, found.complaints())


if __name__ == "__main__":
    command(main)
