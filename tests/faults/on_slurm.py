"""python -m sweeps submit to a real SLURM, and the faults that hit it and its jobs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import cluster
from local import ROOT, Fault, Local, to_worker
from processes import all_of_them, environment, send, words

from sweeps.slurm import jobs_of


@contextmanager
def brought_up() -> Iterator[None]:
    """The SLURM of SLURM_CONF, or one for this block. Raises cluster.Unavailable."""
    if "SLURM_CONF" in os.environ:
        yield
        return
    folder = Path(f"/tmp/fz-{os.getpid()}")
    cluster.up(folder, port=17000 + 4 * (os.getpid() % 4000), grace=5)
    try:
        yield
    finally:
        cluster.down(folder)


class Slurm(Local):
    """The command `python -m sweeps submit`, given again wherever an unfinished run is not in the queue."""

    poll = 1.0

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "sweeps", "submit", *self.victim.arguments]

    def start(self) -> None:
        self.commands += 1
        done = subprocess.run(self.command, cwd=ROOT, stdout=self.log, stderr=self.log)
        self.ended.append(done.returncode)

    def queued(self) -> set[str]:
        """The runs that are in the queue."""
        if not self.victim.folder.exists():
            return set()
        return {run for run, job in jobs_of(self.victim.folder).items() if job.active}

    def go_on(self) -> None:
        left = self.victim.unfinished()
        if not self.victim.planned() or set(left) - self.queued():
            self.start()
        self._administer()

    def _administer(self) -> None:
        """Takes back what SLURM asks a person to look at: a node out of service, and jobs that it holds. Counted."""
        if cluster.slurm("sinfo", "-h", "-o", "%t").startswith("dr"):
            cluster.slurm("scontrol", "update", f"NodeName={_node()}", "State=RESUME")
            self.by_hand += 1
        for job in set(jobs_of(self.victim.folder).values()) if self.victim.folder.exists() else ():
            if job.active and "held" in job.reason.lower():
                cluster.slurm("scontrol", "release", job.id)
                self.by_hand += 1

    def running(self) -> bool:
        return bool(self.queued())

    def workers(self) -> list[int]:
        mine = str(self.victim.folder)
        found = [(pid, words(pid)) for pid in all_of_them()]
        return [
            pid
            for pid, line in found
            if "submitit.core._submit" in line and "python" in Path(line[0]).name and any(mine in word for word in line)
        ]

    def close(self) -> None:
        if self.queued():
            cluster.slurm("scancel", "--name", self.victim.folder.name)
        super().close()


def _job(worker: int) -> str:
    """The job of a process, as SLURM's commands name it; empty where the process is gone."""
    env = environment(worker)
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env.get("SLURM_JOB_ID", "")


def asked(name: str, *command: str) -> Fault:
    """A command of SLURM's on the job of a worker."""

    def strike(engine: Local, worker: int, rng: Random) -> bool:
        if not (job := _job(worker)):
            return False
        try:
            return subprocess.run([*command, job], stdout=engine.log, stderr=engine.log, timeout=10).returncode == 0
        except subprocess.TimeoutExpired:  # scancel tries for long where a job is just ending
            return False

    return Fault(name, strike)


def restarted(name: str, daemon: str, number: signal.Signals) -> Fault:
    """A daemon of SLURM's ends by a signal and is started again seconds later."""

    def strike(engine: Local, worker: int, rng: Random) -> bool:
        conf = Path(os.environ["SLURM_CONF"])
        pid = int((conf.parents[1] / "run" / f"{daemon}.pid").read_text())
        if not send(pid, number):
            return False
        cluster.wait_for(f"the end of {daemon}", lambda: not words(pid))
        time.sleep(rng.uniform(0, 5))
        subprocess.run([shutil.which(daemon, path=f"{os.environ['PATH']}:/usr/sbin") or daemon, "-f", conf], check=True)
        cluster.wait_for("an answer of SLURM", lambda: subprocess.run(["squeue"], capture_output=True).returncode == 0)
        return True

    return Fault(name, strike)


def _node() -> str:
    return cluster.slurm("sinfo", "-h", "-o", "%n").split()[0]


def _lose_the_node(engine: Local, worker: int, rng: Random) -> bool:
    """All that runs there is killed, SLURM gives the node up, and it comes back."""
    for pid in engine.workers():
        send(pid, signal.SIGKILL)
    cluster.slurm("scontrol", "update", f"NodeName={_node()}", "State=DOWN", "Reason=lost")
    time.sleep(rng.uniform(4, 8))  # until what the daemon knew of its jobs is gone
    # refused where it has come back by itself
    subprocess.run(["scontrol", "update", f"NodeName={_node()}", "State=RESUME"], capture_output=True)
    cluster.wait_for("the node", lambda: not cluster.slurm("sinfo", "-h", "-o", "%t").startswith(("down", "drain")))
    return True


def _preempt(engine: Local, worker: int, rng: Random) -> bool:
    """All jobs make room for one of a partition that goes first."""
    subprocess.run(["srun", "-p", "high", "-n1", "--exclusive", "true"], capture_output=True, timeout=120)
    return True


def _kill_submit(engine: Local, worker: int, rng: Random) -> bool:
    """While it submits again what was cancelled."""
    cluster.slurm("scancel", "--name", engine.victim.folder.name)
    with subprocess.Popen(engine.command, cwd=ROOT, stdout=engine.log, stderr=engine.log) as launcher:
        engine.commands += 1
        time.sleep(rng.uniform(0, 5))
        launcher.kill()
    return True


FAULTS = (
    *(to_worker(number) for number in (signal.SIGKILL, signal.SIGTERM)),
    asked("notice (SIGUSR2) to a job", "scancel", "--signal=USR2"),
    asked("scontrol requeue", "scontrol", "requeue"),
    asked("scancel", "scancel"),
    Fault("all cancelled, sweeps submit killed", _kill_submit),
    # killed, it forgets the last seconds: starts jobs twice, for which it takes the node out of service
    restarted("SLURM's controller restarted", "slurmctld", signal.SIGTERM),
    restarted("SLURM's node daemon killed and started again", "slurmd", signal.SIGKILL),
    Fault("node lost", _lose_the_node),
    Fault("preempted by another partition", _preempt),
)
