"""Several workers of one search on this machine, each a process of its own with the same command."""

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowzoo.fleet import ATTEMPTS, Fleet, Worker
from sweeps.search.queue import Queue
from sweeps.search.table import COUNTED, state_of
from sweeps.workers import LOGS


def workers(args: Namespace, queue: Queue) -> int:
    """Starts them, shows how far they are, passes signals on. What each says is in <folder>/.work/<k>.log.

    The trial of a worker that is killed waits for the others; another worker takes its place, twice at most. Returns 0
    once all is done, 130 when interrupted, 1 where no worker is left before.
    """
    logs = queue.folder / LOGS
    columns = ("trials", BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    console = Console(soft_wrap=True, highlight=False)
    progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    row = progress.add_task("trials", total=queue.study.n_trials, told="")
    looks = 0

    def again(worker: Worker, deaths: int) -> bool:
        goes_on = deaths < ATTEMPTS
        console.print(f"worker {worker.number} {worker.ended}" + "; another one takes its place" * goes_on)
        return goes_on

    def look() -> None:
        nonlocal looks
        looks += 1
        if console.is_terminal and looks % 5 == 0:
            states = Counter(map(state_of, queue.all()))
            told = ", ".join(f"{states[s]} {s}" for s in ("running", "diverged", "stopped", "failed") if states[s])
            progress.update(row, completed=sum(states[s] for s in COUNTED), told=told)

    codes: list[int] = []
    received = True
    with suppress(KeyboardInterrupt), Fleet(args.jobs, logs) as fleet, progress:  # where the queue waits for its lock
        codes = fleet.work(search, [(args.study, args.words)] * args.jobs, again=again, look=look)
        received = bool(fleet.received)
    if received:
        print("sweeps search: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for k, code in enumerate(codes):
        if code:
            print(f"sweeps search: worker {k} ended with {code}: {_last(logs / f'{k}.log')}", file=sys.stderr)
    return 0 if queue.over() else 1


def search(study: str, words: Sequence[str]) -> int:
    """What a worker does: the command without -j."""
    from sweeps.__main__ import main

    return main(["search", study, *words])


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
