"""Ctrl-C, SIGTERM and a scheduler's notice: a flag is set, the step ends, the checkpoint is saved.

Saving inside a handler could write a state between two steps.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lightning import Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM and a scheduler's notice do what Ctrl-C does: they raise KeyboardInterrupt."""

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        for number in SIGNALS:
            signal.signal(number, self._handle)

    @contextmanager
    def listening(self) -> Iterator["Notice"]:
        """The handlers are ours for the block, and what they were before after it."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.install()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
