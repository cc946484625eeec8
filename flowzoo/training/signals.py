"""Ctrl-C, SIGTERM and a scheduler's notice: a flag is set, the step ends, the checkpoint is saved.

Saving inside a handler could write a state between two steps. Once all is saved and released, the notice is handed on
to whoever listened before: in a job of submitit's its handler, which has the scheduler requeue the job.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning import Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
Handler = Callable[[int, FrameType | None], None]

_came: list[int] = []  # signals that reached a handler of ours, which `handing_on` has not handed on yet


def install(handler: Handler) -> None:
    def noting(number: int, frame: FrameType | None) -> None:
        _came.append(number)
        handler(number, frame)

    for number in SIGNALS:
        signal.signal(number, noting)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """The signals are the handler's for the block, and whose they were before after it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    install(handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def interruptible() -> AbstractContextManager[None]:
    """Within the block SIGTERM and a scheduler's notice do what Ctrl-C does: they raise KeyboardInterrupt."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    return handled_by(stop)


@contextmanager
def handing_on() -> Iterator[None]:
    """Signals stop the block as `interruptible` says, and after it go to whoever listened before it, in their order.

    To be put around everything that saves and that holds a lock. Submitit's handler of a notice does not return: it
    requeues the job and exits.
    """
    _came.clear()
    try:
        with interruptible():
            yield
    finally:
        for number in _came:
            listener = signal.getsignal(number)
            if callable(listener) and listener is not signal.default_int_handler:
                listener(number, None)


def end_with_parent() -> None:
    """Without the process that started it by multiprocessing, this one stops as after Ctrl-C: everything is saved."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


class Notice:
    """Whether the run was asked to stop. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.signal is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    def given(self, trainer: Trainer) -> bool:
        """The same answer on every process, so that all save together."""
        if trainer.world_size == 1:
            return self.signal is not None
        return trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def install(self) -> None:
        install(self._handle)

    def listening(self) -> AbstractContextManager[None]:
        return handled_by(self._handle)
