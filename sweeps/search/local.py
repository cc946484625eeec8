"""Several workers of one search on this machine, each a process of its own with the same command."""

import os
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowzoo.training.signals import handled_by
from sweeps.search.queue import Queue
from sweeps.search.table import COUNTED, state_of
from sweeps.workers import LOGS, gpu_of, threads_for


def workers(args: Namespace, queue: Queue) -> int:
    """Starts them, shows how far they are, passes signals on. What each says is in <folder>/.work/<k>.log.

    A worker that dies is not replaced: the others take up its trial. Returns 0 once all is done, 130 when interrupted,
    1 where no worker is left before.
    """
    logs = queue.folder / LOGS
    logs.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "sweeps", "search", args.study, *args.words]
    children: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        for child in children:
            child.send_signal(number)

    with handled_by(pass_on), threads_for(args.jobs):
        for k in range(args.jobs):
            gpu = gpu_of(k, args.jobs)
            env = os.environ if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
            with open(logs / f"{k}.log", "ab") as log:
                # a session of its own: Ctrl-C reaches it once, from here
                children.append(subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True))
        _watch(queue, children)
    if received:
        print("sweeps search: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    for k, child in enumerate(children):
        if child.returncode:
            print(
                f"sweeps search: worker {k} ended with {child.returncode}: {_last(logs / f'{k}.log')}", file=sys.stderr
            )
    return 0 if queue.over() else 1


def _watch(queue: Queue, children: list[subprocess.Popen[bytes]]) -> None:
    columns = ("trials", BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    console = Console()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("trials", total=queue.study.n_trials, told="")
        while any(child.poll() is None for child in children):
            states = Counter(map(state_of, queue.all()))
            told = ", ".join(f"{states[s]} {s}" for s in ("running", "diverged", "stopped", "failed") if states[s])
            progress.update(task, completed=sum(states[s] for s in COUNTED), told=told)
            time.sleep(0.5)


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
