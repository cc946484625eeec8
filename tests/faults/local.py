"""python -m sweeps run on this machine, and the faults that hit it."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from processes import descendants, send, suspend, words
from victim import HERE, Victim

ROOT = HERE.parents[1]


class Local:
    """The command `python -m sweeps run`, given again wherever it has ended."""

    poll = 0.05  # seconds between two looks

    def __init__(self, victim: Victim, log: Path) -> None:
        self.victim = victim
        self.log = open(log, "ab")  # noqa: SIM115  for the life of this object
        self.launchers: list[subprocess.Popen[bytes]] = []
        self.ended: list[int] = []
        self.commands = 0
        self.by_hand = 0  # what the commands alone could not do

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "sweeps", "run", *self.victim.arguments, "-j", "2"]

    def start(self) -> None:
        self.commands += 1
        self.launchers.append(
            subprocess.Popen(
                self.command,
                cwd=ROOT,
                stdout=self.log,
                stderr=self.log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a script's background job ignores it
            )
        )

    def go_on(self) -> None:
        """The same command again, where none runs."""
        if not self.running():
            self.start()

    def running(self) -> bool:
        self.ended += [one.returncode for one in self.launchers if one.poll() is not None]
        self.launchers = [one for one in self.launchers if one.returncode is None]
        return bool(self.launchers)

    def workers(self) -> list[int]:
        """The processes that train, or will once they have started."""
        ours = [pid for launcher in self.launchers for pid in descendants(launcher.pid)]
        return [pid for pid in ours if any("flowzoo.fleet" in word for word in words(pid))]

    def close(self) -> None:
        """Ends what is left of it."""
        pids = [pid for one in self.launchers for pid in (one.pid, *descendants(one.pid))]
        for pid in {*pids, *self.victim.owners()}:
            send(pid, signal.SIGKILL)
        for launcher in self.launchers:
            launcher.wait()
        self.log.close()


@dataclass(frozen=True)
class Fault:
    """`strike(engine, worker, rng)` says whether there was something to hit."""

    name: str
    strike: Callable[[Local, int, Random], bool]


def to_worker(number: signal.Signals) -> Fault:
    return Fault(f"{number.name} of a worker", lambda engine, worker, rng: send(worker, number))


def to_launcher(number: signal.Signals) -> Fault:
    return Fault(
        f"{number.name} of the launcher",
        lambda engine, worker, rng: engine.running() and send(rng.choice(engine.launchers).pid, number),
    )


def _lose_the_host(engine: Local, worker: int, rng: Random) -> bool:
    pids = [pid for one in engine.launchers for pid in (one.pid, *descendants(one.pid))]
    return bool([pid for pid in pids if send(pid, signal.SIGKILL)])


def _fill_the_disk(engine: Local, worker: int, rng: Random) -> bool:
    """For a while the system refuses the worker every byte that would make a file larger than this."""
    try:
        soft, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (rng.choice((0, 4096)), hard))
    except ProcessLookupError:
        return False
    time.sleep(rng.uniform(0.2, 4))
    with suppress(ProcessLookupError):
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (soft, hard))
    return True


def _start_another(engine: Local, worker: int, rng: Random) -> bool:
    engine.start()
    return True


FAULTS = (
    *(to_worker(number) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2)),
    *(to_launcher(number) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)),
    Fault("all processes killed", _lose_the_host),
    Fault("full disk for seconds", _fill_the_disk),
    Fault("worker suspended for seconds", lambda engine, worker, rng: suspend(worker, rng.uniform(0.2, 4))),
    Fault("a second launcher", _start_another),
)
