"""One writer a run, on file systems that hosts share: a file that names its owner and is touched while the owner lives.

flock may reach no further than one host on NFS or Lustre. Here only what these make atomic is used: hard links, which
fail where the name exists, and renames. Each owner has a file of its own, and the lock is a second name of that file.

Who changes a lock that names the owner D, to take it over or to let go of it, first gets the claim on it: a lock as
well, whose name ends in D's token, which nobody uses twice. So of several takers one succeeds, there is no moment
without a lock between two owners, and an owner that wakes up late cannot remove its successor's. A claim is held for
moments; a dead owner's is taken over in the same way.
"""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Self
from uuid import uuid4

from flowzoo.runs.files import regular
from flowzoo.runs.slurm import has_processes

LOCK = ".lock"
BEAT = 10.0  # seconds between two signs of life
STALE = 120.0  # seconds without one after which an owner counts as dead, where nothing better can be known


@dataclass(frozen=True)
class Owner:
    """A process. `place` tells hosts, boots and containers apart; `started` tells processes of one number apart."""

    token: str
    host: str
    pid: int
    started: int | None
    place: str | None
    cluster: str | None
    job: str | None
    restarts: int
    since: str

    @classmethod
    def here(cls) -> Self:
        env = os.environ
        return cls(
            token=uuid4().hex[:16],
            host=socket.gethostname(),
            pid=os.getpid(),
            started=_start_of(os.getpid()),
            place=_place(),
            cluster=env.get("SLURM_CLUSTER_NAME"),
            job=env.get("SLURM_JOB_ID"),
            restarts=_restarts(),
            since=datetime.now().astimezone().isoformat(timespec="seconds"),
        )

    def __str__(self) -> str:
        job = f", SLURM job {self.job}," if self.job else ""
        return f"process {self.pid} on {self.host}{job} since {self.since}"

    def lives(self) -> bool | None:
        """Whether the process exists; None where that cannot be seen from here."""
        if self.place is not None and self.place == _place():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:  # another user's, which /proc may hide
                return True
            return _start_of(self.pid) == self.started
        here = os.environ
        if self.job and self.cluster and self.cluster == here.get("SLURM_CLUSTER_NAME"):
            if self.job != here.get("SLURM_JOB_ID"):
                return False if has_processes(self.job) is False else None
            if self.restarts < _restarts():
                return False  # this very job, requeued
        return None


@dataclass(frozen=True)
class Held:
    """A lock as it was read. `owner` is None where the file is cut short; `beat` is its last sign of life."""

    token: str
    owner: Owner | None
    beat: float

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None where there is no lock."""
        try:
            with open(path, "rb", opener=regular) as file:  # opening makes NFS ask the server
                content, beat = file.read(), os.fstat(file.fileno()).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            owner = Owner(**json.loads(content))
        except (ValueError, TypeError):
            return cls(sha256(content).hexdigest()[:16], None, beat)
        return cls(owner.token, owner, beat)

    def lost(self, now: float) -> bool:
        """Whether its owner is dead. `now` is the time of the clock that `beat` was read from, in seconds."""
        lives = self.owner.lives() if self.owner else None
        return now - self.beat > STALE if lives is None else not lives

    def __str__(self) -> str:
        return str(self.owner or "another process")


class RunLock:
    """The lock of one run folder. Every method may raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self.owner = Owner.here()
        self.own = _own(folder, self.owner.token)

    def acquire(self) -> Held | None:
        """None once it is ours, which a thread then says every `BEAT` seconds; whose it is where it is another's."""
        try:
            self.own.write_text(json.dumps(asdict(self.owner)))
            while not self._take(self.path):
                if held := Held.read(self.path):
                    self.own.unlink()
                    return held
        except BaseException:
            with suppress(OSError):
                self.own.unlink(missing_ok=True)
            raise
        _heart_of(os.getpid()).add(self)
        return None

    def release(self) -> None:
        """Lets go of it, where it is still ours. Writes nothing, so that a full disk does not hinder it."""
        _heart_of(os.getpid()).remove(self)
        claim = _claim(self.path, self.owner.token)
        with suppress(FileNotFoundError):  # its successor has removed our file
            if self._take(claim):
                try:
                    if self.is_ours():
                        self.path.unlink()
                finally:
                    self._let_go(claim)
        self.own.unlink(missing_ok=True)

    def is_ours(self) -> bool:
        """False once another took it for lost, as happens to a process that was suspended, or somebody removed it."""
        return _names(self.path, self.owner.token)

    def beat(self) -> None:
        """Our file is the lock while the lock is ours; a successor's is another file."""
        with suppress(OSError):
            os.utime(self.own)

    def _take(self, path: Path) -> bool:
        """Makes `path` a name of our file, where there is none or its owner is dead."""
        try:
            os.link(self.own, path)
            return True
        except FileExistsError:
            held = Held.read(path)
        if held is None:
            return False
        if held.token == self.owner.token:  # NFS may do what it is asked and then lose the answer
            return True
        # Our file was touched at most one beat ago: by the same clock as theirs.
        if not held.lost(os.stat(self.own).st_mtime):
            return False
        claim = _claim(path, held.token)
        if not self._take(claim):
            return False
        try:
            if not _names(path, held.token):  # another taker was faster, and has let go of the claim since
                return False
            following = self.own.with_name(f"{self.own.name}.next")
            os.link(self.own, following)
            os.replace(following, path)
            _own(self.path.parent, held.token).unlink(missing_ok=True)
            return True
        finally:
            self._let_go(claim)

    def _let_go(self, claim: Path) -> None:
        if _names(claim, self.owner.token):
            claim.unlink(missing_ok=True)


def _restarts() -> int:
    """How often SLURM has requeued this job; what is no number was not set by SLURM."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return int(count) if count.isascii() and count.isdecimal() else 0


def _own(folder: Path, token: str) -> Path:
    return folder / f"{LOCK}-{token}"


def _claim(path: Path, token: str) -> Path:
    return path.with_name(f"{path.name}.{token}")


def _names(path: Path, token: str) -> bool:
    held = Held.read(path)
    return held is not None and held.token == token


class _Heart:
    """One thread for all locks that this process holds, while it holds any."""

    def __init__(self) -> None:
        self.locks: set[RunLock] = set()
        self.guard = threading.Lock()
        self.beating = False

    def add(self, lock: RunLock) -> None:
        with self.guard:
            self.locks.add(lock)
            if not self.beating:
                threading.Thread(target=self._beat, name="heartbeat of run locks", daemon=True).start()
                self.beating = True

    def remove(self, lock: RunLock) -> None:
        with self.guard:
            self.locks.discard(lock)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self.guard:
                locks = list(self.locks)
                if not locks:
                    self.beating = False
                    return
            for lock in locks:
                lock.beat()


@cache
def _heart_of(pid: int) -> _Heart:
    """By process: a forked child has the parent's objects but neither its thread nor its locks."""
    return _Heart()


@cache
def _place() -> str | None:
    """The boot of a host, and in it the space in which process numbers have a meaning; None where /proc has neither."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None where there is none or it is only not yet reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = text.rpartition(")")[2].split()  # its name may hold anything
    threads, start = int(rest[16]), int(rest[18])
    # a killed process whose first thread is gone may have others that still end a write
    return None if state in "ZX" and threads <= 1 else start
