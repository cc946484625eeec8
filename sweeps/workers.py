"""Planned runs in several processes of this machine: each takes what nobody else holds, until nothing is left."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flowzoo.fleet import ATTEMPTS, INTERRUPTED, Fleet, Worker, say
from flowzoo.runs.lock import LOCK, Held
from flowzoo.runs.refusal import UserErrors, one_line
from flowzoo.runs.store import FINISHED, Run, RunError
from flowzoo.train import run
from sweeps.engine import End, Outcome, conclude, run_one
from sweeps.manifest import Manifest, Planned
from sweeps.work import jobs

LOGS = ".work"

Task = Callable[[DictConfig], object]  # a function of a module: workers import it
Statuses = Mapping[str, Mapping[str, Any]]  # of each run, by its id


@dataclass(frozen=True)
class Began:
    """What a worker says of a run before the `Outcome` of it."""

    id: str


@dataclass(frozen=True)
class Ended:
    id: str
    outcome: Outcome


def run_parallel(
    manifest: Manifest, ids: Sequence[str], execution: Sequence[str], workers: int, task: Task = run
) -> int:
    """Trains the planned runs of `ids` that are not finished, `workers` at a time. Returns the exit code as `work`.

    The locks of the runs are the queue: a worker tries one run after another and passes over what another holds. A run
    whose process is killed is tried again, twice at most. What each worker prints is in <folder>/.work/<k>.log. Raises
    one of `UserErrors` before anything is written.
    """
    for cfg in jobs(manifest, ids, execution):
        if cfg.trainer.devices not in (1, "auto") or cfg.trainer.num_nodes != 1:
            raise ValueError(f"-j {workers} with trainer.devices={cfg.trainer.devices}: allowed are runs of one device")
    planned = manifest.chosen(ids)
    todo = [run for run in planned if not manifest.run(run).is_finished]
    there = [_outcome(manifest, run, note="already there") for run in planned if run not in todo]
    if not todo:
        return conclude(there, len(planned))
    watch = _Watch(manifest, todo)
    before = {run.id: _status(manifest.run(run)) for run in todo}
    share = (manifest.folder, [run.id for run in todo], before, list(execution), task)
    with Fleet(min(workers, len(todo)), manifest.folder / LOGS) as fleet, watch.progress:
        codes = fleet.work(take_all, [share] * fleet.size, watch.hear, watch.goes_on, watch.look)
        received = bool(fleet.received)
    return conclude([*there, *watch.concluded(codes, received)], len(planned), interrupted=received)


def take_all(folder: Path, ids: Sequence[str], before: Statuses, execution: Sequence[str], task: Task) -> int:
    """What a worker does: it trains what nobody has tried since the command began, until nothing of that is left.

    `before`: the statuses of the runs at that time.
    """
    manifest, tried = Manifest.read(folder), set()
    console = Console(soft_wrap=True, highlight=False)
    took = True
    while took:  # once more over all: what a killed worker held was passed over
        took = False
        for id in ids:
            planned = manifest.by_id[id]
            if id in tried or not _is_open(manifest.run(planned), before[id]):
                continue
            say(Began(id))
            try:
                (cfg,) = jobs(manifest, [id], execution)
                outcome = run_one(cfg, task, console, manifest.swept[id])
            except UserErrors as error:  # what was there when the command began is gone
                outcome = _outcome(manifest, planned, End.FAILED, one_line(error))
            say(Ended(id, outcome))
            if outcome.end is End.INTERRUPTED:
                return INTERRUPTED
            if outcome.end is not End.BUSY:
                took = True
                tried.add(id)
    return 0


def _is_open(run: Run, before: Mapping[str, Any]) -> bool:
    """Whether a worker should try a run, as far as this can be said without its lock."""
    now = _status(run)
    state = now.get("state")
    if state in FINISHED or _is_held(run):
        return False
    if state == "running":  # it is lost
        return now.get("attempt", 0) - before.get("attempt", 0) < ATTEMPTS
    return state == "queued" or now == before


def _is_held(run: Run) -> bool:
    """By a process of this machine that lives."""
    held = Held.read(run.path / LOCK)
    return held is not None and held.owner is not None and held.owner.lives() is True


def _status(run: Run) -> dict[str, Any]:
    """Empty where it cannot be read: who trains the run will say so."""
    with suppress(RunError):
        return run.status
    return {}


def _outcome(manifest: Manifest, run: Planned, end: End = End.DONE, note: str = "") -> Outcome:
    return Outcome(manifest.run(run).path, run.variant, run.seed, end, note, swept=manifest.swept[run.id])


class _Watch:
    """What the command shows of its workers, and what it does about those that are killed."""

    def __init__(self, manifest: Manifest, todo: Sequence[Planned]) -> None:
        self.manifest, self.todo = manifest, todo
        self.outcomes: dict[str, Outcome] = {}
        self.held: dict[int, str] = {}  # what each worker is at
        self.rows: dict[int, TaskID] = {}
        self.begun: list[str] = []
        self.killed: Counter[str] = Counter()
        self.looks = 0
        self.console = Console(soft_wrap=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self.row = self.progress.add_task("runs", total=len(todo))

    def hear(self, worker: Worker, message: Began | Ended) -> None:
        planned = self.manifest.by_id[message.id]
        if isinstance(message, Began):
            self.held[worker.number] = message.id
            self.rows[worker.number] = self.progress.add_task(self.manifest.named(planned), total=planned.steps)
            if message.id not in self.begun:
                self.begun.append(message.id)
                self._say(f"[{len(self.begun)}/{len(self.todo)}] {self.manifest.named(planned)}")
            return
        self._let_go(worker)
        if message.outcome.end is not End.BUSY:
            self._conclude(message.id, message.outcome)

    def goes_on(self, worker: Worker, deaths: int) -> bool:
        """After a worker was killed: whether another one takes its place."""
        id = self._let_go(worker)
        if id is None:
            if deaths < ATTEMPTS:
                return True
            self._say(f"worker {worker.number} {worker.ended} {deaths} times; see {self.manifest.folder / LOGS}")
            return False
        self.killed[id] += 1
        planned, told = self.manifest.by_id[id], f"its process {worker.ended}"
        if self.killed[id] < ATTEMPTS:
            self._say(f"{self.manifest.named(planned)}: {told}; once more")
            return True
        told = f"{told}, the last of {ATTEMPTS} times; see {self.manifest.folder / LOGS}"
        run = self.manifest.run(planned)
        with suppress(RunError), run.lock():  # unless another command has taken it up
            run.set_status("failed", exception=told)
        self._conclude(id, _outcome(self.manifest, planned, End.FAILED, told))
        return True

    def look(self) -> None:
        """Shows the step that each worker's run is at, every two seconds."""
        self.looks += 1
        if self.console.is_terminal and self.looks % 20 == 0:
            for number, row in self.rows.items():
                with suppress(RunError):
                    records = self.manifest.run(self.manifest.by_id[self.held[number]]).metrics()
                    self.progress.update(row, completed=max((r.get("step", 0) for r in records), default=0))

    def concluded(self, codes: Sequence[int], interrupted: bool) -> list[Outcome]:
        """The outcome of every run; of those that were begun where the command was interrupted."""
        for id in self.held.values():  # its worker is gone
            end, note = (End.INTERRUPTED, "interrupted") if interrupted else (End.FAILED, "its process ended")
            self.outcomes.setdefault(id, _outcome(self.manifest, self.manifest.by_id[id], end, note))
        for planned in [] if interrupted else self.todo:
            if planned.id in self.outcomes:
                continue
            busy = not any(codes) or _is_held(self.manifest.run(planned))
            end, note = (End.BUSY, "busy") if busy else (End.FAILED, f"no worker is left; see {LOGS}")
            self.outcomes[planned.id] = _outcome(self.manifest, planned, end, note)
        return [self.outcomes[planned.id] for planned in self.todo if planned.id in self.outcomes]

    def _let_go(self, worker: Worker) -> str | None:
        if worker.number in self.rows:
            self.progress.remove_task(self.rows.pop(worker.number))
        return self.held.pop(worker.number, None)

    def _conclude(self, id: str, outcome: Outcome) -> None:
        self.outcomes[id] = outcome
        self.progress.update(self.row, completed=len(self.outcomes))
        state = outcome.note if outcome.end is not End.DONE else Run(outcome.path).state
        self._say(f"{outcome.name}: {state}")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False)
