"""`python -m analysis.rank FILE.csv`: rank formulations by FID and CLIP score, as the paper does."""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.outputs import check_file, write
from analysis.ranking import Entry, Ranking, rank
from analysis.results import GROUP, SETTING, Results, read
from flowzoo.runs.files import RunError, tell
from flowzoo.runs.output import command

RANK_COLUMNS = ("variant", "rank_all", "rank_5_steps", "rank_50_steps", "rank_50_all", "n_settings")
# what several seeds add; the scores are means over settings, of seeds that have all of them
SEED_COLUMNS = ("place", "rank_all_low", "rank_all_high", "n_seeds")
SEED_COLUMNS_CSV = ("rank_all_se", "n_seeds", "rank_all_low", "rank_all_high", "place", "ties", "fid", "fid_se", "clip",
                    "clip_se")  # fmt: skip
SCORE_COLUMNS = ("variant", "front", "fid", "fid_se", "clip", "clip_se", "n_seeds")
FILTERS = ("variant", *SETTING, "seed")
NOISE = "FID gaps of about 1.3 % are noise of sampling alone, and a training seed moves FID about three times as much"


def columns(ranking: Ranking) -> tuple[str, ...]:
    """The columns of a printed ranking; those about seeds only where there are several."""
    return RANK_COLUMNS + (SEED_COLUMNS if len(ranking.seeds) > 1 else ())


def as_csv(ranking: Ranking) -> str:
    """The ranking for programs: numbers with six decimals at most, an empty cell where there is none."""
    names = RANK_COLUMNS + (SEED_COLUMNS_CSV if len(ranking.seeds) > 1 else ())
    rows = []
    for entry in ranking.entries:
        row = dict(vars(entry), ties=len(entry.ties) if entry.place else None)
        mean = entry.mean
        row |= {name: getattr(mean, name) if mean else None for name in ("fid", "fid_se", "clip", "clip_se")}
        rows.append([_cell(row[name]) for name in names])
    return _csv([names, *rows])


def scores_as_csv(ranking: Ranking, results: Results) -> str:
    """Every variant's scores in every setting, averaged over its seeds, with its front there, for programs."""
    rows: list[Sequence[str]] = [(*results.columns, *SCORE_COLUMNS)]
    for setting in ranking.settings:
        front = ranking.fronts[setting]
        scores = ranking.scores[setting]
        for variant in sorted(scores, key=lambda v: (front[v] is None, front[v] or 0, v)):
            score = scores[variant]
            cells = (front[variant], score.fid, score.fid_se, score.clip, score.clip_se, score.n)
            rows.append([*setting, variant, *map(_cell, cells)])
    return _csv(rows)


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
        lines.append(f"one seed: no intervals; {NOISE}")
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


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{round(value, 6):.12g}"
    return "" if value is None else str(value)


def _csv(rows: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def load(path: Path) -> tuple[Results, list[str]]:
    """Results of a CSV file, or of every run below a folder; and a line for each thing there that cannot be read.

    Raises:
        ValueError: there is no such file, or its rows are not usable.
    """
    if path.is_dir():
        from analysis.collect import collect, results

        found = collect([path])
        if not found.runs:
            raise ValueError(f"{path} holds searches and no other runs; python -m analysis.report shows them")
        return results(found.runs), found.complaints()
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a CSV file or a folder of runs")
    return read(path), []


def add_filters(parser: argparse.ArgumentParser) -> None:
    """The options `--include-variant PATTERN`, `--include-steps VALUE` and so on, for `filters`."""
    for name in FILTERS:
        parser.add_argument(
            f"--include-{name}",
            action="append",
            metavar="VALUE",
            help=f"only this {name}, * for any letters (repeat for more)",
        )


def filters(args: argparse.Namespace) -> Mapping[str, Sequence[str]]:
    """What the options ask for, for `Results.include`."""
    return {name: given for name in FILTERS if (given := getattr(args, f"include_{name}"))}


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m analysis.rank",
        description="Rank formulations: means over seeds, non-dominated sorting on FID (down) and CLIP score (up) "
        "within each setting, then the average front over settings. Front 1 is best.",
    )
    out.add_argument("file", type=Path, help="CSV with columns variant, fid, clip and settings, or a folder of runs")
    out.add_argument("--csv", action="store_true", help="print CSV instead of a table for people")
    out.add_argument("--scores", type=Path, metavar="FILE", help="also write means, errors and fronts by setting")
    out.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="also keep what is printed (CSV if FILE is .csv)"
    )
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
        results, unreadable = load(args.file)
        results = results.include(filters(args))
        ranking = rank(results)
        text = as_csv(ranking) if args.csv else as_text(ranking, results)
        if args.output:
            write(args.output, as_csv(ranking) if args.output.suffix == ".csv" else text)
        if args.scores:
            write(args.scores, scores_as_csv(ranking, results))
    except (ValueError, OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(text)
    if args.csv and (told := notes(ranking, results)):
        print(*told, sep="\n", file=sys.stderr)
    return tell("analysis.rank", unreadable)


if __name__ == "__main__":
    command(main)
