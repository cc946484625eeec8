"""Processes as /proc tells of them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def words(pid: int) -> list[str]:
    """The command line; empty for a process that is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    return []


def environment(pid: int) -> dict[str, str]:
    """What it was started with; empty for a process that is gone."""
    with suppress(OSError):
        pairs = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {}


def all_of_them() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def descendants(pid: int) -> Iterator[int]:
    """Children first, then theirs."""
    children: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += map(int, (task / "children").read_text().split())
    yield from children
    for child in children:
        yield from descendants(child)


def send(pid: int, number: int) -> bool:
    """Whether it was there to be sent a signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def suspend(pid: int, seconds: float) -> bool:
    if not send(pid, signal.SIGSTOP):
        return False
    time.sleep(seconds)
    send(pid, signal.SIGCONT)
    return True
