"""Ctrl-C, SIGTERM and a scheduler's notice: a flag is set, the step ends, the checkpoint is saved.

Saving inside a handler could write a state between two steps.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from lightning import Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


Handler = Callable[[int, FrameType | None], None]


def install(handler: Handler) -> None:
    for number in SIGNALS:
        signal.signal(number, handler)


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
