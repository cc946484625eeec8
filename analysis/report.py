"""`python -m analysis.report RUNS -o DIR`: the report of a sweep, from its run folders or its raw rows alone."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from analysis.against import against
from analysis.collect import collect, results
from analysis.markdown import markdown
from analysis.markup import Figures
from analysis.objectives import DEFAULT, chosen
from analysis.outputs import check_folder, check_runs
from analysis.page import page
from analysis.pictures import check_charts, save
from analysis.rank import add_filters, add_objectives, add_together, filters
from analysis.ranked import Ranked, as_csv, scores_as_csv
from analysis.results import GROUP, Results
from analysis.searches import searches
from analysis.study import studies
from analysis.swept import swept_keys
from flowzoo.runs.columns import config_columns
from flowzoo.runs.files import RunError, csv_text, replace, tell
from flowzoo.runs.layout import REPORT
from flowzoo.runs.output import command
from flowzoo.runs.reading import RunFolder

PROGRAM = "analysis.report"
FILES = (REPORT, "report.md", "ranking.csv", "scores.csv", "results.csv")


class Report(NamedTuple):
    """The page of a report, and a line for each thing that cannot be read and is not in it."""

    page: Path
    unreadable: list[str]


def report(
    roots: Sequence[Path],
    folder: Path,
    title: str | None = None,
    include: Mapping[str, Sequence[str]] = MappingProxyType({}),
    objectives: str | None = None,
    together: Sequence[str] = (),
    charts: Path | None = None,
) -> Report:
    """Write report.html, report.md, ranking.csv, scores.csv and results.csv into `folder`.

    Searches (trials.csv) have sections of their own, and no part in the CSV files.

    `roots` are folders and tables of raw rows, as for `collect`. `include` names what of each column to keep
    (`Results.include`), `objectives` what ranks (`objectives.chosen`), `together` is that of `collect.results`,
    `charts` a folder for the charts as files.

    Raises:
        ValueError: no run is found, two runs claim the same (variant, seed, setting), nothing is to be included, the
            objectives are not to be had, or `folder` has other files in the place of these.
    """
    check_folder("-o", folder, FILES)
    if charts:
        check_charts("--charts", charts)
    there = collect(roots)
    for option, place in (("-o", folder), ("--charts", charts)):
        if place:
            check_runs(option, place, [run.path for run in there.runs])
    found_searches, unreadable = searches(there.searches)
    if not there.runs and not found_searches:
        raise ValueError("; ".join(unreadable))
    runs = there.runs
    rows = results(runs, together).include(include)
    ranked_by = chosen(objectives, rows, runs) if runs else DEFAULT
    found = studies(runs, rows, ranked_by) if runs else []
    swept = against(rows, runs, ranked_by, together) if runs else []
    figures = Figures()
    title = title or f"flowzoo: {', '.join(dict.fromkeys(root.resolve().name for root in roots))}"
    written = {
        REPORT: page(found, title, found_searches, swept, figures),
        "report.md": markdown(found, title, found_searches, swept),
    }
    if runs:
        ranked = [Ranked(s.ranking, s.results, dict(zip(GROUP, s.key, strict=True))) for s in found]
        written |= {
            "ranking.csv": as_csv(ranked),
            "scores.csv": scores_as_csv(ranked),
            "results.csv": _results(rows, runs),
        }
    unreadable = [*there.complaints(), *unreadable]  # once all that a report reads is read
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():  # the page first: it says that the others are a report's
        replace(folder / name, text)
    if charts:
        save(figures, charts, PROGRAM)
    return Report(folder / REPORT, unreadable)


def _results(rows: Results, runs: Sequence[RunFolder]) -> str:
    """Every row of every run, the untrained baselines too, with the swept keys."""
    keys = swept_keys(runs)
    cells = {str(run.path): config_columns(run.config) for run in runs} if keys else {}
    names = dict.fromkeys(name for row in rows.rows if row.setting is not None for name in row.record)
    names = names or dict.fromkeys(name for row in rows.rows for name in row.record)
    lines = ((row.record, cells.get(row.source, {})) for row in rows.rows)
    told = ([*(own.get(name) for name in names), *(config.get(key) for key in keys)] for own, config in lines)
    return csv_text([[*names, *keys], *told])


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m analysis.report",
        description="Write the report of runs: one HTML page that opens without a network, Markdown and CSV beside it.",
    )
    out.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNS", help="folders of runs, searched below, and tables of raw rows"
    )
    out.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the report goes")
    out.add_argument("--charts", type=Path, metavar="DIR", help="also write every chart there, as .svg, .png and .pdf")
    out.add_argument("--title", help="the title; the names of the folders by default")
    add_objectives(out)
    add_filters(out)
    add_together(out)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is one line on stderr and exit code 2.

    What cannot be read is a line each, and exit code 1: the report is of the rest.
    """
    args = parser().parse_args(argv)
    try:
        written = report(args.runs, args.output, args.title, filters(args), args.objectives, args.together, args.charts)
    except (ValueError, OSError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(written.page, *[args.charts] * bool(args.charts), sep="\n")
    return tell(PROGRAM, written.unreadable)


if __name__ == "__main__":
    command(main)
