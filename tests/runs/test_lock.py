"""The lock of a run: held by at most one, whoever dies when, and never taken from the living."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from flowzoo.runs import lock, slurm
from flowzoo.runs.lock import LOCK, STALE, Held, Owner, RunLock

# Takes the lock again and again. flock on a file beside it says truly, within this host, whether somebody else is in;
# at some entries the process dies without a word, and at some while it changes the lock.
CONTENDER = """
import fcntl, os, pathlib, random, sys
from flowzoo.runs import lock, slurm
folder, seed, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
dies_in = chance.randrange(1, 4 * rounds)
def dying(call):
    def counted(*args, **kwargs):
        global dies_in
        dies_in -= 1
        if dies_in == 0:
            os._exit(9)
        return call(*args, **kwargs)
    return counted
os.link, os.replace = dying(os.link), dying(os.replace)
pathlib.Path.unlink = dying(pathlib.Path.unlink)
entered = 0
while entered < rounds:
    mine = lock.RunLock(folder)
    if mine.acquire():
        continue
    with open(folder / "truth", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(3)
        if not mine.is_ours():
            sys.exit(4)
        entered += 1
        if chance.random() < 0.05:
            os._exit(9)
        fcntl.flock(file, fcntl.LOCK_UN)
    mine.release()
"""


def test_at_most_one_holds_it_whoever_dies_where(tmp_path):
    code = [sys.executable, "-c", CONTENDER, str(tmp_path)]
    seeds = iter(range(100))
    crowd = [subprocess.Popen([*code, str(next(seeds)), "25"]) for _ in range(4)]
    codes = []
    while crowd:
        codes.append(crowd.pop(0).wait())
        if codes[-1] == 9 and len(codes) < 12:
            crowd.append(subprocess.Popen([*code, str(next(seeds)), "25"]))
    assert set(codes) <= {0, 9}
    assert 9 in codes
    last = RunLock(tmp_path)
    assert last.acquire() is None  # whatever the dead left behind
    last.release()
    assert not (tmp_path / LOCK).exists()


def elsewhere(folder, age: float, **changes) -> Owner:
    """The lock as a process of another host left it, `age` seconds ago."""
    other = replace(Owner.here(), token="other", host="elsewhere", pid=7, place="another boot", **changes)
    (folder / LOCK).write_text(json.dumps(asdict(other)))
    os.utime(folder / LOCK, (time.time() - age,) * 2)
    return other


def test_another_hosts_lock_is_taken_when_its_heart_has_stopped(tmp_path):
    elsewhere(tmp_path, STALE / 2)
    held = RunLock(tmp_path).acquire()
    assert held is not None
    assert str(held).startswith("process 7 on elsewhere since ")
    elsewhere(tmp_path, STALE * 2)
    mine = RunLock(tmp_path)
    assert mine.acquire() is None
    assert mine.is_ours()


def test_age_is_by_the_file_servers_clock(tmp_path, monkeypatch):
    elsewhere(tmp_path, 0)
    monkeypatch.setattr(time, "time", lambda: 1e12)  # this host's clock is wrong
    assert RunLock(tmp_path).acquire() is not None


def test_the_living_are_known_on_their_own_host_however_silent(tmp_path):
    mine = RunLock(tmp_path)
    assert mine.acquire() is None
    os.utime(tmp_path / LOCK, (0, 0))  # suspended for years
    assert RunLock(tmp_path).acquire() is not None
    mine.release()


def test_the_dead_are_known_on_their_own_host_at_once():
    me = Owner.here()
    assert me.lives()
    assert replace(me, started=0).lives() is False  # the number is another process's by now
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not replace(me, pid=child.pid).lives()  # dead, though its parent has not asked yet
    child.wait()
    assert replace(me, pid=child.pid).lives() is False
    assert replace(me, place="another container").lives() is None


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Sets what squeue answers, in a job of the cluster c."""

    def answers(script: str) -> None:
        path = tmp_path / "bin" / "squeue"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setattr(slurm, "_silent_until", 0.0)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    return answers


@pytest.mark.parametrize(
    ("answer", "dead"),
    [
        ("echo RUNNING", False),
        ("echo COMPLETING", False),
        ("true", True),
        ("echo PENDING", True),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", True),
        ("echo slurm_load_jobs error: down >&2; exit 1", False),
        ("exit 1", False),
        ("exec sleep 1000", False),
    ],
)
def test_a_slurm_job_that_is_gone_is_dead_at_once(tmp_path, monkeypatch, squeue, answer, dead):
    monkeypatch.setattr(slurm, "PATIENCE", 0.5)
    squeue(answer)
    elsewhere(tmp_path, 0, job="1", cluster="c")
    assert (RunLock(tmp_path).acquire() is None) == dead
    elsewhere(tmp_path, 0, job="1", cluster="another")
    assert RunLock(tmp_path).acquire() is not None


def test_without_an_answer_of_slurms_the_heart_decides_and_slurm_is_not_asked_for_each_lock(tmp_path, squeue):
    squeue(f"echo asked >> {tmp_path}/asked; exit 1")
    for name in "abc":
        (tmp_path / name).mkdir()
        elsewhere(tmp_path / name, STALE / 2, job="1", cluster="c")
        assert RunLock(tmp_path / name).acquire() is not None
    assert (tmp_path / "asked").read_text() == "asked\n"
    elsewhere(tmp_path / "c", STALE * 2, job="1", cluster="c")
    mine = RunLock(tmp_path / "c")
    assert mine.acquire() is None
    mine.release()


@pytest.mark.parametrize("count", ["", "x", "-1", "²"])
def test_a_count_of_requeues_that_is_no_number_is_zero(tmp_path, monkeypatch, count):
    monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    lock = RunLock(tmp_path)
    assert lock.owner.restarts == 0
    assert lock.acquire() is None
    lock.release()


def test_a_requeued_job_takes_over_from_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    elsewhere(tmp_path, 0, job="1", cluster="c", restarts=0)
    assert RunLock(tmp_path).acquire() is not None  # another task of the same job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert RunLock(tmp_path).acquire() is None


@pytest.mark.parametrize("content", ["", "process 12 on some host\n", '{"token"', "[1]"])
def test_a_lock_that_cannot_be_read_counts_by_its_age(tmp_path, content):
    path = tmp_path / LOCK
    path.write_text(content)
    held = RunLock(tmp_path).acquire()
    assert str(held) == "another process"
    os.utime(path, (0, 0))
    assert RunLock(tmp_path).acquire() is None


def test_an_owner_that_wakes_up_late_neither_removes_nor_renews_its_successors_lock(tmp_path):
    late = RunLock(tmp_path)
    assert late.acquire() is None
    awake = replace(late.owner, place="another boot")
    late.own.write_text(json.dumps(asdict(awake)))
    os.utime(late.own, (0, 0))
    successor = RunLock(tmp_path)
    assert successor.acquire() is None
    os.utime(tmp_path / LOCK, (5, 5))
    late.beat()
    late.release()
    assert not late.is_ours()
    assert successor.is_ours()
    held = Held.read(tmp_path / LOCK)
    assert held is not None
    assert held.beat == 5
    successor.release()
    assert list(tmp_path.iterdir()) == []


def test_one_thread_beats_for_all_locks(tmp_path, monkeypatch):
    heart = lock._Heart()
    monkeypatch.setattr(lock, "BEAT", 0.01)
    monkeypatch.setattr(lock, "_heart_of", lambda pid: heart)
    before = threading.active_count()
    locks = []
    for k in range(20):
        (tmp_path / str(k)).mkdir()
        locks.append(RunLock(tmp_path / str(k)))
        assert locks[-1].acquire() is None
        os.utime(locks[-1].path, (0, 0))
    assert threading.active_count() <= before + 1
    while any(os.stat(one.path).st_mtime == 0 for one in locks):
        time.sleep(0.01)
    for one in locks:
        one.release()
