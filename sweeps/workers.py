"""Planned runs in several processes of this machine: each takes the next one, and what a killed one held goes on."""

import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flowzoo.runs.config import UserErrors, one_line
from flowzoo.runs.store import Run, RunError
from flowzoo.train import run
from flowzoo.training.signals import end_with_parent, handled_by
from sweeps.engine import End, Outcome, conclude, run_one
from sweeps.manifest import Manifest, Planned
from sweeps.work import jobs

LOGS = ".work"
ATTEMPTS = 3  # of a run whose process is killed; then it is the run that kills it


Task = Callable[[DictConfig], object]  # a function of a module: workers import it


def run_parallel(
    manifest: Manifest, ids: Sequence[str], execution: Sequence[str], workers: int, task: Task = run
) -> int:
    """Trains the planned runs of `ids` that are not finished, `workers` at a time. Returns the exit code as `work`.

    What each worker prints is in <folder>/.work/<k>.log. Raises one of `UserErrors` before anything is written.
    """
    for cfg in jobs(manifest, ids, execution):
        if cfg.trainer.devices not in (1, "auto") or cfg.trainer.num_nodes != 1:
            raise ValueError(f"-j {workers} with trainer.devices={cfg.trainer.devices}: allowed are runs of one device")
    planned = manifest.chosen(ids)
    todo = [run for run in planned if not manifest.run(run).is_finished]
    pool = _Pool(manifest, todo, list(execution), min(workers, len(todo)), task)
    with handled_by(pool.pass_on), threads_for(pool.size):
        pool.work()
    there = [_outcome(manifest, run, note="already there") for run in planned if run not in todo]
    return conclude([*there, *pool.outcomes], len(planned), interrupted=bool(pool.received))


def _outcome(manifest: Manifest, run: Planned, end: End = End.DONE, note: str = "") -> Outcome:
    return Outcome(manifest.run(run).path, run.variant, run.seed, end, note)


@contextmanager
def threads_for(workers: int) -> Iterator[None]:
    """Processes that share the cores must not each use all of them; for the processes started in the block."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // max(1, workers)))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


@dataclass
class _Worker:
    number: int
    process: BaseProcess
    pipe: Connection
    run: Planned | None = None
    row: TaskID | None = None


class _Pool:
    def __init__(
        self, manifest: Manifest, todo: Sequence[Planned], execution: list[str], size: int, task: Task
    ) -> None:
        self.manifest, self.execution, self.size, self.task = manifest, execution, size, task
        self.todo, self.total = deque(todo), len(todo)
        self.workers: list[_Worker] = []
        self.killed: Counter[str] = Counter()
        self.outcomes: list[Outcome] = []
        self.received: list[int] = []
        self.console = Console(soft_wrap=True, highlight=False)

    def pass_on(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        for worker in self.workers:
            if worker.process.pid is not None and worker.process.is_alive():
                os.kill(worker.process.pid, number)

    def work(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(
            *columns, console=self.console, disable=not self.console.is_terminal, transient=True
        ) as self.progress:
            self.row = self.progress.add_task("runs", total=self.total)
            for number in range(self.size):
                self._start(number)
            while self.workers:
                ready = wait([worker.pipe for worker in self.workers], timeout=2)
                for worker in list(self.workers):
                    if worker.pipe in ready:
                        self._hear(worker)
                    elif self.console.is_terminal:
                        self._show(worker)

    def _show(self, worker: _Worker) -> None:
        """The step that a worker's run is at."""
        if worker.run is not None and worker.row is not None:
            with suppress(RunError):
                records = self.manifest.run(worker.run).metrics()
                self.progress.update(worker.row, completed=max((r.get("step", 0) for r in records), default=0))

    def _start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        job = (self.manifest.folder, self.execution, self.task, number, self.size)
        process = context.Process(target=_serve, args=(theirs, *job))
        process.start()
        theirs.close()  # so that its end is seen here
        worker = _Worker(number, process, ours)
        self.workers.append(worker)
        self._give(worker)

    def _give(self, worker: _Worker) -> None:
        """The next run; without one the worker's pipe is closed, and it ends."""
        if self.received or not self.todo:
            worker.run = None
            self._end(worker)
            return
        worker.run = run = self.todo.popleft()
        self._say(f"[{self.total - len(self.todo)}/{self.total}] {run.variant}, seed {run.seed}")
        worker.row = self.progress.add_task(f"{run.variant}, seed {run.seed}", total=run.steps)
        with suppress(OSError):  # it is dead, which is heard next
            worker.pipe.send(run.id)

    def _end(self, worker: _Worker) -> None:
        worker.pipe.close()
        self.workers.remove(worker)
        worker.process.join()

    def _hear(self, worker: _Worker) -> None:
        run = worker.run
        assert run is not None
        if worker.row is not None:
            self.progress.remove_task(worker.row)
        try:
            outcome: Outcome | None = worker.pipe.recv()
        except (EOFError, OSError):
            outcome = None
        if outcome is None:
            self._end(worker)
            self._lost(run, worker)
        else:
            self._conclude(outcome)
            if outcome.end is End.INTERRUPTED and not self.received:
                self.pass_on(signal.SIGTERM, None)  # who asks a worker to stop asks the command
            self._give(worker)
        if self.todo and len(self.workers) < self.size and not self.received:
            self._start(worker.number)

    def _lost(self, run: Planned, worker: _Worker) -> None:
        code = worker.process.exitcode or 0
        what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if self.received:
            self._conclude(_outcome(self.manifest, run, End.INTERRUPTED, "interrupted"))
        else:
            self._again(run, what)

    def _again(self, run: Planned, what: str) -> None:
        self.killed[run.id] += 1
        told = f"its process {what}"
        if self.killed[run.id] < ATTEMPTS:
            self._say(f"{run.variant}, seed {run.seed}: {told}; once more")
            self.todo.appendleft(run)
            return
        told = f"{told}, the last of {ATTEMPTS} times; see {self.manifest.folder / LOGS}"
        self._conclude(_outcome(self.manifest, run, End.FAILED, told))
        folder = self.manifest.run(run)
        with suppress(RunError), folder.lock():  # unless another command has taken it up
            folder.set_status("failed", exception=told)

    def _conclude(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.progress.update(self.row, completed=len(self.outcomes))
        state = outcome.note if outcome.end is not End.DONE else Run(outcome.path).state
        self._say(f"{outcome.variant}, seed {outcome.seed}: {state}")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False)


def _serve(pipe: Connection, folder: Path, execution: Sequence[str], task: Task, number: int, size: int) -> None:
    """A worker: trains the runs that it is sent. Not in the terminal's group: Ctrl-C reaches it once, by its parent."""
    os.setsid()
    end_with_parent()
    (folder / LOGS).mkdir(exist_ok=True)
    with open(folder / LOGS / f"{number}.log", "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if (gpu := gpu_of(number, size)) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch is imported
    manifest = Manifest.read(folder)
    console = Console(soft_wrap=True, highlight=False)
    while True:
        try:
            id = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            (cfg,) = jobs(manifest, [id], execution)
            outcome = run_one(cfg, task, console)
        except UserErrors as error:  # what was there when the command began is gone
            outcome = _outcome(manifest, manifest.by_id[id], End.FAILED, one_line(error))
        sys.stdout.flush()
        with suppress(OSError):  # the parent is gone, which is heard next
            pipe.send(outcome)
        if outcome.end is End.INTERRUPTED:
            return


def gpu_of(number: int, size: int) -> str | None:
    """Workers are dealt to the GPUs in turn; None where that is not needed."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else list(map(str, range(len(list(Path("/dev").glob("nvidia[0-9]*"))))))
    return gpus[number % len(gpus)] if gpus and size > 1 else None
