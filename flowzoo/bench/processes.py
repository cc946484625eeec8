"""The same measurement in several processes at once, which start counting together."""

import pickle
from collections.abc import Callable, Sequence
from typing import Any

from flowzoo.fleet import Fleet, Worker, await_go, say


def together(task: Callable[..., float], jobs: Sequence[tuple[Any, ...]], gpu: int | None = None) -> list[float]:
    """`task(ready, *job)` of every job in a process of its own, with a GPU of its own unless all share GPU `gpu`.

    A task calls `ready()` when it is warm, which returns once all are. Raises what the first of them raised, and
    KeyboardInterrupt after a signal.
    """
    told: dict[int, float] = {}
    warm: set[int] = set()
    errors: list[Exception] = []

    def hear(worker: Worker, message: tuple[str, Any]) -> None:
        kind, value = message
        if kind == "warm":
            warm.add(worker.number)
            if len(warm) == len(jobs):
                for each in fleet.workers:
                    each.go()
        elif kind == "error":
            errors.append(value)
        else:
            told[worker.number] = value

    def look() -> None:
        if (errors or dead) and not fleet.received:
            fleet.stop()  # the others would wait for this one

    def again(worker: Worker, deaths: int) -> bool:
        dead.append(f"process {worker.number} of {len(jobs)} {worker.ended}")
        return False

    dead: list[str] = []
    with Fleet(len(jobs)) as fleet:
        fleet.work(_task, [(task, job) for job in jobs], hear, again, look, gpu=gpu)
    if errors:
        raise errors[0]
    if dead:
        raise RuntimeError(dead[0])
    if fleet.received:
        raise KeyboardInterrupt
    return [told[k] for k in range(len(jobs))]


def _task(task: Callable[..., float], job: tuple[Any, ...]) -> int:
    def ready() -> None:
        say(("warm", None))
        await_go()

    try:
        say(("rate", task(ready, *job)))
    except Exception as error:
        say(("error", _told(error)))
        return 1
    return 0


def _told(error: Exception) -> Exception:
    """The error, as far as it can be told to another process."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
