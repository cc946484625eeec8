"""The trials of a study in an Optuna storage, dealt to any number of workers: n of them count, whoever dies.

Optuna's storages make single operations atomic, not "ask unless n are there". So a worker asks, tells and returns under
a lock of the study (flowzoo/runs/lock.py), and holds another one for as long as it lives, by which the others know
whether it does. A trial that a dead worker has left, or that an interrupted one returns, waits again under its own
number with the parameters that it had.
"""

import json
import logging
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from flowzoo.runs.files import RunError, replace
from flowzoo.runs.layout import SEARCH, TRIALS
from flowzoo.runs.lock import LOCK, Held, RunLock
from flowzoo.runs.signals import stoppable
from sweeps.manifest import departure
from sweeps.search.objective import Verdict
from sweeps.search.study import Study
from sweeps.search.table import COUNTED, counted, state_of, write

ATTEMPTS = 3  # at a trial whose judging raises an exception, before it is given up


class Queue:
    """One worker's hold on a study in `folder`, `runs/<sweep>`. `about` is what must be the same for all of them."""

    def __init__(self, study: Study, folder: Path, about: dict[str, Any]) -> None:
        self.study, self.folder, self.about = study, folder, about
        self.place = folder / ".search"
        self.me = self.place / f"worker-{os.getpid()}-{os.urandom(4).hex()}"
        self.alive = RunLock(self.me)

    def __enter__(self) -> Self:
        optuna.logging.set_verbosity(logging.WARNING)
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self.me.mkdir()
                self.alive.acquire()
                self._bury()
                self.trials = self._open()
        except BaseException:
            self._die()
            for empty in (self.place, self.folder):
                with suppress(OSError):  # of a study that has begun already
                    empty.rmdir()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """What this worker still holds waits for whoever comes next."""
        self._die()
        with suppress(RunError), self._alone():  # they are found out as a dead worker's, too
            self._returned()
            self._export()

    def _die(self) -> None:
        with suppress(OSError):
            self.alive.release()
            self.me.rmdir()

    def take(self, most: int) -> list[Trial]:
        """Up to `most` trials to judge, with their parameters drawn; none where the rest is done or in other hands."""
        with self._alone():
            self._returned()
            states = Counter(map(state_of, self.trials.get_trials(deepcopy=False)))
            left = self.study.n_trials - states["running"] - sum(states[state] for state in COUNTED)
            return [self._ask() for _ in range(min(most, left))]

    def tell(self, trials: Sequence[Trial], verdicts: Sequence[Verdict]) -> None:
        with self._alone():
            for trial, verdict in zip(trials, verdicts, strict=True):
                if not self._is_mine(trial):
                    continue
                if verdict.run:
                    trial.set_user_attr("run", verdict.run)
                if verdict.scores is not None:
                    told = (verdict.scores[name] for name in self.study.objectives)  # all numbers: `judged_by`
                    self.trials.tell(trial, [score for score in told if score is not None])
                else:
                    trial.set_user_attr("ended", verdict.ended)
                    self.trials.tell(trial, state=TrialState.FAIL)
            self._export()

    def give_back(self, trials: Sequence[Trial], failure: str | None = None) -> None:
        """They wait for whoever comes next. After `ATTEMPTS` failures one is given up; another takes its place."""
        with self._alone():
            for trial in filter(self._is_mine, trials):
                if failure is not None:
                    trial.set_user_attr("exception", failure)
                    trial.set_user_attr("failures", trial.user_attrs.get("failures", 0) + 1)
                if trial.user_attrs.get("failures", 0) >= ATTEMPTS:
                    trial.set_user_attr("ended", "failed")
                    self.trials.tell(trial, state=TrialState.FAIL)
                else:
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            self._export()

    def all(self) -> list[FrozenTrial]:
        with self._alone():
            return self.trials.get_trials(deepcopy=False)

    def over(self) -> bool:
        return counted(self.all()) >= self.study.n_trials

    def _ask(self) -> Trial:
        waiting = self.trials.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        number = waiting[0].number if waiting else len(self.trials.get_trials(deepcopy=False))
        self.trials.sampler = self.study.sampler_of(number)
        trial = self.trials.ask()
        trial.set_user_attr("worker", self.me.name)
        for parameter in self.study.parameters.values():
            parameter.of(trial)
        return trial

    def _is_mine(self, trial: Trial) -> bool:
        """False once another worker has it, which took this one for dead while it was suspended."""
        now = self.storage.get_trial(trial._trial_id)
        return now.state == TrialState.RUNNING and now.user_attrs.get("worker") == self.me.name

    def _returned(self) -> None:
        """Has the trials of dead workers wait again. One that died before it gave its name to a trial has left none."""
        for trial in self.trials.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            if worker is None or not self._is_alive(self.place / worker):
                self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _is_alive(self, worker: Path) -> bool:
        held = Held.read(worker / LOCK)
        # our own lock has just been written, by the clock that theirs is touched by
        return held is not None and not held.lost(self.turn.own.stat().st_mtime)

    def _bury(self) -> None:
        """Removes what dead workers have left."""
        for worker in self.place.glob("worker-*"):
            if not self._is_alive(worker):
                shutil.rmtree(worker, ignore_errors=True)

    def _open(self) -> optuna.Study:
        try:
            if self.study.storage is None:
                path = str(self._journal)
                self.storage: BaseStorage = JournalStorage(JournalFileBackend(path, _Held(path)))
            else:
                self.storage = optuna.storages.get_storage(self.study.storage)
        except Exception as error:  # whatever a database, or Optuna reading it, has to say
            raise RunError(f"cannot open the storage {self.study.storage or self._journal}: {_short(error)}") from error
        name = self._name()
        ways = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
        directions = [ways[direction] for direction in self.study.objectives.values()]
        trials = optuna.create_study(storage=self.storage, study_name=name, directions=directions, load_if_exists=True)
        known = trials.user_attrs.get("about")
        if known is None:
            trials.set_user_attr("about", self.about)
        elif told := departure(known, self.about):
            raise ValueError(f"the study {name} was begun otherwise: {told}; allowed is another sweep=NAME")
        replace(self.folder / SEARCH, json.dumps({"name": name, "objectives": self.study.objectives}) + "\n")
        return trials

    def _name(self) -> str:
        """The study's name in its storage: its folder's when it was begun, wherever that lies now. Raises RunError."""
        path = self.folder / SEARCH
        try:
            return str(json.loads(path.read_text())["name"])
        except FileNotFoundError:
            return self.folder.name
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunError(f"cannot read {path}: {error}") from error

    @property
    def _journal(self) -> Path:
        return self.folder / "study.journal"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Raises RunError for a full disk and the like. What was not written did not happen."""
        self.turn = RunLock(self.place)
        try:
            while self.turn.acquire() is not None:
                stoppable(time.sleep)(random.uniform(0.002, 0.02))
            try:
                _mend(self._journal)
                yield
            finally:
                self.turn.release()
        except OSError as error:
            raise RunError(f"cannot write in {self.folder}: {error.strerror or error}") from error

    def _export(self) -> None:
        trials = self.trials.get_trials(deepcopy=False)
        write(self.folder / TRIALS, list(self.study.objectives), list(self.study.parameters), trials)


class _Held(JournalFileOpenLock):
    """The study's lock is held whenever the journal is written. Optuna's own would wait 30 s for a dead holder."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _mend(journal: Path) -> None:
    """Cuts off a line that its writer did not live to end: nothing was built on it, and the next would run into it."""
    with suppress(FileNotFoundError), open(journal, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        start = end
        while start > 0:
            start = max(0, start - 4096)
            file.seek(start)
            if (at := file.read(min(4096, end - start)).rfind(b"\n")) >= 0:
                start += at + 1
                break
        if start < end:
            file.truncate(start)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
