"""`python -m analysis.rank FILE.csv`: rank formulations by FID and CLIP score, as the paper does."""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.ranking import Entry, Ranking, rank
from analysis.results import SETTING, Results, read

RANK_COLUMNS = ("variant", "rank_all", "rank_5_steps", "rank_50_steps", "rank_50_all", "n_settings")
SEED_COLUMNS = ("rank_all_se", "n_seeds")


def columns(ranking: Ranking) -> tuple[str, ...]:
    """The columns of a printed ranking; those about seeds only where there are several."""
    return RANK_COLUMNS + (SEED_COLUMNS if len(ranking.seeds) > 1 else ())


def as_csv(ranking: Ranking) -> str:
    """The ranking for programs: numbers with six decimals at most, an empty cell where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns(ranking))
    for entry in ranking.entries:
        writer.writerow([_cell(entry, name, decimals=6) for name in columns(ranking)])
    return out.getvalue()


def as_text(ranking: Ranking, results: Results) -> str:
    """The ranking for people: a table, then what has no rank and why."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns(ranking):
        table.add_column(name, justify="left" if name == "variant" else "right", no_wrap=True)
    for entry in ranking.ranked:
        table.add_row(*(_cell(entry, name, decimals=2) for name in columns(ranking)))
    out = io.StringIO()
    console = Console(file=out, width=160, highlight=False)
    console.print(table)
    for line in notes(ranking, results):
        console.print(line, markup=False, soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def notes(ranking: Ranking, results: Results) -> list[str]:
    """What a reader must know beside the table."""
    lines = []
    if diverged := [entry.variant for entry in ranking.ranked if entry.diverged]:
        lines.append(f"diverged, last front + 1: {', '.join(diverged)}")
    if ranking.unranked:
        lines.append(f"not ranked ({len(ranking.unranked)}):")
        lines += [f"  {entry.variant}: {entry.reason}" for entry in ranking.unranked]
    if not ranking.ranked:
        varying = [name for name in ("dataset", "backbone", "protocol") if len(results.values(name)) > 1]
        lines.append(f"no variant has all {len(ranking.settings)} settings of every seed; choose some with --include-…")
        lines += [f"  --include-{name}: {', '.join(results.values(name))}" for name in varying]
    return lines


def _cell(entry: Entry, name: str, decimals: int) -> str:
    value = getattr(entry, name)
    if isinstance(value, float):
        return f"{value:.{decimals}f}" if decimals == 2 else f"{round(value, decimals):.{decimals + 6}g}"
    return "" if value is None else str(value)


def load(path: Path) -> Results:
    """Results of a CSV file, or of every run below a folder.

    Raises:
        ValueError: there is no such file, or its rows are not usable.
    """
    if path.is_dir():
        from analysis.collect import collect, results

        return results(collect([path]))
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give a CSV file or a folder of runs")
    return read(path)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m analysis.rank",
        description="Rank formulations: non-dominated sorting on FID (down) and CLIP score (up) within each setting, "
        "then the average front over settings. Front 1 is best.",
    )
    out.add_argument("file", type=Path, help="CSV with columns variant, fid, clip and settings, or a folder of runs")
    out.add_argument("--csv", action="store_true", help="print CSV instead of a table for people")
    out.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="also keep what is printed (CSV if FILE is .csv)"
    )
    for name in (*SETTING, "seed"):
        out.add_argument(
            f"--include-{name}", action="append", metavar="VALUE", help=f"only this {name} (repeat for more)"
        )
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is one line on stderr and exit code 2."""
    args = parser().parse_args(argv)
    wanted = {name: given for name in (*SETTING, "seed") if (given := getattr(args, f"include_{name}"))}
    try:
        results = load(args.file).include(wanted)
        ranking = rank(results)
        text = as_csv(ranking) if args.csv else as_text(ranking, results)
        if args.output:
            kept = as_csv(ranking) if args.output.suffix == ".csv" else text
            args.output.write_text(kept, encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(text)
    if args.csv:
        print(*notes(ranking, results), sep="\n", end="\n" if notes(ranking, results) else "", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
