"""python -m sweeps status SWEEP [--done TABLE] [--json] [--watch]: where each run stands."""

import json
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flowzoo.runs.layout import ALL_STATES
from sweeps.choice import Done, add_done
from sweeps.manifest import is_plan, kept_plan
from sweeps.standing import Standing, folder_of, standing, standings

REFRESH = 2.0  # seconds
COLORS = {"running": "cyan", "done": "green", "failed": "red", "lost": "red", "damaged": "red", "diverged": "yellow"}


def configure(parser: ArgumentParser) -> None:
    add_folder(parser)
    add_done(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument("--watch", action="store_true", help="until nothing runs or waits, or Ctrl-C")


def add_folder(parser: ArgumentParser) -> None:
    """SWEEP and its words, as every command takes them that looks at what is there."""
    parser.add_argument("sweep", metavar="SWEEP", help="a name, a YAML file, the folder of a sweep, or a plan")
    parser.add_argument("words", nargs="*", metavar="key=value", help="runs=DIR and sweep=NAME say which folder")


def main(args: Namespace) -> int:
    done = Done(args.done)
    if is_plan(args.sweep):
        manifest = kept_plan(args.sweep, args.words)
        folder, look = Path(args.sweep), partial(standing, manifest, done)
    else:
        folder = folder_of(args.sweep, args.words)
        look = partial(standings, folder, done)
    rows = look()
    if args.json:
        runs = [asdict(row) for row in rows]
        print(json.dumps({"folder": str(folder), "counts": counts(rows), "runs": runs}, indent=1))
    elif args.watch:
        rows = _watch(folder, look)
    else:
        console = Console(soft_wrap=True, highlight=False)
        for part in fitting(rows, console):
            console.print(part)
        console.print(summary(folder, rows), markup=False)
    return 1 if any(row.unreadable for row in rows) else 0


def counts(rows: Sequence[Standing]) -> dict[str, int]:
    """How many runs are in each state that there is."""
    found = Counter(row.state for row in rows)
    return {state: found[state] for state in ALL_STATES if found[state]}


def summary(folder: Path, rows: Sequence[Standing]) -> str:
    states = ", ".join(f"{n} {state}" for state, n in counts(rows).items())
    return f"{folder}: {len(rows)} run{'s' * (len(rows) != 1)}{': ' * bool(rows)}{states}"


def fitting(rows: Sequence[Standing], console: Console) -> list[Table | Text]:
    """The table; where it is too wide, the notes below it. A file or a pipe is as wide as what is left of it."""
    endless = console.options.update(width=9999)
    whole, bare = table(rows), table([replace(row, note="") for row in rows])
    if not console.is_terminal:
        console.width = max(console.width, console.measure(bare, options=endless).maximum)
    if console.measure(whole, options=endless).maximum <= console.width:
        return [whole]
    return [bare, *(Text(f"{row.id}: {row.note}") for row in rows if row.note)]


def table(rows: Sequence[Standing]) -> Table:
    """Columns that no row fills are left out."""
    cells: dict[str, list[str | Text]] = {
        "run": [row.id for row in rows],
        "swept": [row.swept for row in rows],
        "state": [Text(row.state, COLORS.get(row.state, "")) for row in rows],
        "step": [f"{row.step}/{'?' if row.steps is None else row.steps}" for row in rows],
        "left": ["" if row.eta is None else str(timedelta(seconds=round(row.eta))) for row in rows],
        "attempt": [str(row.attempt or "") for row in rows],
        "job": [row.job for row in rows],
        "note": [Text(row.note, overflow="fold") for row in rows],
    }
    shown = {name: column for name, column in cells.items() if name == "run" or any(str(cell) for cell in column)}
    made = Table()
    for name in shown:
        made.add_column(
            name, justify="right" if name in ("step", "left", "attempt") else "left", no_wrap=name != "note"
        )
    for row in zip(*shown.values(), strict=True):
        made.add_row(*row)
    return made


def _watch(folder: Path, look: Callable[[], list[Standing]]) -> list[Standing]:
    """The last rows. What is at work and what went wrong comes first, as a screen holds few lines."""
    order = ("running", "lost", "damaged", "failed", "preempted", "queued", "missing", "stopped", "diverged", "done")
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            rows = look()
            first = sorted(rows, key=lambda row: order.index(row.state))
            live.update(Group(summary(folder, rows), *fitting(first, console)), refresh=True)
            if not any(row.state in ("running", "queued") or row.job.endswith("PENDING") for row in rows):
                return rows
            time.sleep(REFRESH)
