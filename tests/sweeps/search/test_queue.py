"""A study's trials among workers: n of them count, none is lost, whoever dies and whenever."""

import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import moocore
import numpy as np
import pytest
import yaml

from sweeps.search.objective import Verdict, judged_by
from sweeps.search.queue import ATTEMPTS, Queue
from sweeps.search.study import Parameter, Study, load
from sweeps.search.table import counted, state_of
from sweeps.search.toy import Toy, front

PARAMETERS = {
    "sampler.m": Parameter("sampler.m", -1.5, 1.5),
    "sampler.s": Parameter("sampler.s", 0.2, 2.5, log=True),
}
Open = Callable[..., Queue]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def queue(n: int, name: str = "study", **fields) -> Queue:
        return Queue(Study(name, PARAMETERS, n, **fields), tmp_path / name, {"about": 1})

    return queue


def judged(trials: Sequence) -> list[Verdict]:
    return Toy("toy").judge([trial.params for trial in trials])


def finish(queue: Queue, batch: int = 1) -> None:
    while trials := queue.take(batch):
        queue.tell(trials, judged(trials))


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/trials.db"])
def test_several_workers_come_to_exactly_n(storage: str | None, opened: Open, tmp_path: Path) -> None:
    with opened(9, storage=storage and storage.format(tmp_path)) as one, opened(9, storage=one.study.storage) as other:
        held = one.take(2)
        finish(other, batch=3)
        assert counted(one.all()) == 7
        assert other.take(1) == []
        assert not other.over()
        one.tell(held, judged(held))
        assert other.over()
        assert [trial.number for trial in one.all()] == list(range(9))
    with opened(11, storage=one.study.storage) as more:
        finish(more)
        assert counted(more.all()) == len(more.all()) == 11


def test_what_a_dead_worker_held_waits_again(opened: Open) -> None:
    dead = opened(4)
    dead.__enter__()
    taken = dead.take(2)
    dead.alive.release()  # as the system does: nothing else of it is told
    with opened(4) as queue:
        again = queue.take(2)
        assert [(t.number, t.params) for t in again] == [(t.number, t.params) for t in taken]
        dead.tell(taken, judged(taken))  # it was suspended, not dead: what it says comes too late
        assert [state_of(t) for t in queue.all()] == ["running"] * 2
        queue.tell(again, judged(again))
        finish(queue)
        assert [state_of(t) for t in queue.all()] == ["done"] * 4


def test_diverged_and_stopped_count_and_failed_ones_are_replaced(opened: Open) -> None:
    with opened(4) as queue:
        queue.tell(queue.take(2), [Verdict(None, "diverged"), Verdict(None, "stopped")])
        for k in range(ATTEMPTS):
            (trial,) = queue.take(1)
            assert (trial.number, trial.user_attrs.get("failures", 0)) == (2, k)
            queue.give_back([trial], failure="RuntimeError: no")
        finish(queue)
        assert [state_of(t) for t in queue.all()] == ["diverged", "stopped", "failed", "done", "done"]
        assert queue.over()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_one_worker_draws_the_same_whether_interrupted_or_not(sampler: str, opened: Open) -> None:
    with opened(25, name="whole", sampler=sampler, seed=3) as queue:
        finish(queue)
        whole = [trial.params for trial in queue.all()]
    draw = random.Random(0)
    over = False
    while not over:
        with opened(25, name="parts", sampler=sampler, seed=3) as queue:
            for _ in range(draw.randrange(1, 6)):
                trials = queue.take(1)
                if draw.random() < 0.3:
                    queue.give_back(trials)
                else:
                    queue.tell(trials, judged(trials))
            over = queue.over()
            parts = [trial.params for trial in queue.all()]
    assert parts == whole
    assert len({tuple(p.values()) for p in whole}) == 25


def test_a_line_cut_short_is_cut_off(opened: Open, tmp_path: Path) -> None:
    journal = tmp_path / "study" / "study.journal"
    with opened(5) as queue:
        queue.tell(trials := queue.take(2), judged(trials))
        whole = journal.read_bytes()
        for part in (b"{", whole.splitlines()[-1]):
            with open(journal, "ab") as file:
                file.write(part)
            assert counted(queue.all()) == 2
            assert journal.read_bytes() == whole
        finish(queue)
    with opened(5) as queue:
        assert counted(queue.all()) == 5


def volume(points: np.ndarray) -> float:
    """Dominated by the points, from the worst that the true front has in each."""
    true = front()
    return float(moocore.hypervolume(points, ref=[true[:, 0].max(), true[:, 1].min()], maximise=[False, True]))


def test_200_trials_find_the_front(tmp_path: Path) -> None:
    study = load("toy")
    with Queue(study, tmp_path / "toy", {}) as queue:
        finish(queue)
        points = np.array([trial.values for trial in queue.all()])
    assert len(points) == study.n_trials == 200
    assert volume(points) >= 0.95 * volume(front())


def test_workers_killed_at_random(tmp_path: Path) -> None:
    """Neither the number of trials nor any of them suffers; nothing is left that would stop the next."""
    toy = {"_target_": "sweeps.search.toy.Toy", "seconds": 0.02}
    parameters = {p.name: {"low": p.low, "high": p.high, "log": p.log} for p in PARAMETERS.values()}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({"parameters": parameters, "n_trials": 40, "objective": toy}))
    command = [sys.executable, "-m", "sweeps", "search", "toy.yaml"]
    root = str(Path(__file__).parents[3])
    draw = random.Random(0)

    def start() -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    journal = tmp_path / "runs" / "toy" / "study.journal"
    workers = [start() for _ in range(2)]
    for _ in range(6):
        size = journal.stat().st_size if journal.exists() else -1
        while workers[0].poll() is None and journal.exists() and journal.stat().st_size == size:
            time.sleep(0.01)  # somebody has written: kills fall among work, not among starts
        time.sleep(draw.uniform(0, 0.5))
        workers[0].send_signal(draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        workers[0].wait()
        workers = [*workers[1:], start()]
    assert [worker.wait(timeout=600) for worker in workers] == [0, 0]
    study = Study("toy", PARAMETERS, 40, objective=toy)
    with Queue(study, tmp_path / "runs" / "toy", {"study": study.described()}) as queue:
        trials = queue.all()
    assert [state_of(trial) for trial in trials] == ["done"] * 40
    again = Toy("toy").judge([trial.params for trial in trials])
    assert [dict(zip(("fid", "clip"), trial.values, strict=True)) for trial in trials] == [v.scores for v in again]
    assert os.listdir(tmp_path / "runs" / "toy" / ".search") == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """The worker ends with 1 and nothing is lost: with room again the same command goes on."""
    (tmp_path / "toy.yaml").write_text((Path(load.__code__.co_filename).parents[1] / "studies/toy.yaml").read_text())
    command = [sys.executable, "-m", "sweeps", "search", "toy.yaml", "n_trials=30"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    # a limit on the size of a file is met as a full disk is; SIGXFSZ would kill
    full = [
        "import resource, runpy, signal, sys",
        f"sys.argv = {command[2:]}",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12000, -1))",
        "runpy.run_module('sweeps', run_name='__main__')",
    ]
    one = subprocess.run([sys.executable, "-c", "; ".join(full)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert one.returncode == 1, one.stderr
    assert "cannot write in" in one.stderr
    assert "Traceback" not in one.stderr
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True).returncode == 0
    study = load("toy")
    with Queue(study, tmp_path / "runs" / "toy", {"study": study.described()}) as queue:
        assert [state_of(trial) for trial in queue.all()] == ["done"] * 30


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/trials.db"])
def test_a_study_that_was_moved_goes_on_with_its_trials(storage: str | None, opened: Open, tmp_path: Path) -> None:
    storage = storage and storage.format(tmp_path)
    with opened(2, storage=storage) as queue:
        finish(queue)
    (tmp_path / "study").rename(tmp_path / "elsewhere")
    with opened(3, name="elsewhere", storage=storage) as moved:
        finish(moved)
        assert [trial.number for trial in moved.all()] == [0, 1, 2]
    assert not (tmp_path / "study").exists()


def test_three_scores_a_trial_in_the_order_of_the_objectives(opened: Open, tmp_path: Path) -> None:
    objectives = {"geneval": "max", "fid": "min", "clip": "max"}
    with opened(4, objectives=objectives) as queue:
        while trials := queue.take(1):
            number = trials[0].number
            made = Verdict({"fid": number, "clip": 1 - number, "kid": 7, "geneval": 0.5 if number else math.nan})
            queue.tell(trials, [judged_by(made, objectives)])
        assert {trial.number for trial in queue.trials.best_trials} == {1}
    header, *rows = list(csv.reader((tmp_path / "study" / "trials.csv").open()))
    assert header[:6] == ["number", "state", "geneval", "fid", "clip", "run"]
    assert [row[1:5] for row in rows[:2]] == [["diverged", "", "", ""], ["done", "0.5", "1.0", "0.0"]]
    assert json.loads((tmp_path / "study" / "study.json").read_text())["objectives"] == objectives
