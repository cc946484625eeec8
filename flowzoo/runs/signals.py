"""How a process is asked to stop, and when it does: Ctrl-C, SIGTERM, a hang-up, a scheduler's notice, lost output.

A signal may come between any two instructions. Where a run saves itself, says how it stands or lets go of its lock,
nothing may be interrupted: that code is `shielded`, and a signal waits there until it is over. Long work inside of it
is `stoppable`: there a signal raises KeyboardInterrupt. Training alone listens for itself (`Notice`): the step ends
and the checkpoint is saved. Signals that the process was started to ignore (`nohup`, a background job of a script)
stay ignored.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from lightning import Trainer

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
Handler = Callable[[int, FrameType | None], None]
P = ParamSpec("P")
T = TypeVar("T")

_listeners: list[Handler] = []  # the last one hears
_came: list[int] = []  # all that was heard
_waiting: list[int] = []  # what was heard where nothing may be interrupted; raised as soon as something may be


def _hear(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    _listeners[-1](number, frame)


def install() -> None:
    """Leads all signals that ask to stop to the last listener, but for those that are ignored."""
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hear)


@contextmanager
def handled_by(listener: Handler) -> Iterator[None]:
    """The signals are the listener's for the block, and whose they were before after it."""
    before = {number: signal.getsignal(number) for number in STOPS}
    depth = len(_listeners)
    if not depth:
        _waiting.clear()
    _listeners.append(listener)
    try:
        install()
        yield
    finally:
        try:
            for number, earlier in before.items():
                if earlier is not None:  # not Python's
                    signal.signal(number, earlier)
        finally:
            del _listeners[depth:]


def lose_output() -> None:
    """What follows when nobody reads the output any more: the same as SIGTERM. Without a listener the process ends."""
    if _listeners:
        _hear(signal.SIGPIPE, sys._getframe())
    elif threading.current_thread() is threading.main_thread():
        raise SystemExit(128 + signal.SIGPIPE)


def shielded(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, in which signals wait until it is over, and then raise KeyboardInterrupt.

    What it calls by `stoppable` is interrupted at once.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with handled_by(_interrupt):
            try:
                result = _shut(function, args, kwargs)
            except Exception as error:
                check(error)
                raise
        check()
        return result

    return call


def stoppable(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, in which a signal raises KeyboardInterrupt. So does one that waits when it is called."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with handled_by(_interrupt):
            check()
            return _open(function, args, kwargs)

    return call


def check(cause: BaseException | None = None) -> None:
    """Raises KeyboardInterrupt where a signal waits."""
    if _waiting:
        _waiting.clear()
        raise KeyboardInterrupt from cause


# Frames of these two mark the stack: the innermost one says whether what runs may be interrupted. Unlike a flag, that
# is right between any two instructions, also on the way in and out.
def _open(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    return function(*args, **kwargs)


def _shut(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    return function(*args, **kwargs)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _is_open(frame) and not _is_unwinding():
        _waiting.clear()
        raise KeyboardInterrupt
    _waiting.append(number)


def _is_open(frame: FrameType | None) -> bool:
    """Not in a destructor either, whose exceptions Python drops: a signal waits there, too."""
    while frame is not None and frame.f_code is not _shut.__code__ and frame.f_code.co_name != "__del__":
        if frame.f_code is _open.__code__:
            return True
        frame = frame.f_back
    return False


def _is_unwinding() -> bool:
    """Whether an interruption is on its way out: what cleans up after it is not to be interrupted."""
    return is_interruption(sys.exception())


def is_interruption(error: BaseException | None) -> bool:
    """Whether an error is a KeyboardInterrupt, or came up while one was on its way out."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


@contextmanager
def handing_on() -> Iterator[None]:
    """Signals wait as in `shielded`, and after the block go to whoever listened before it, in their order.

    To be put around everything that saves and that holds a lock. Submitit's handler of a notice does not return: it
    requeues the job and exits.
    """
    first = len(_came)
    try:
        with handled_by(_interrupt):
            yield
        check()
    finally:
        for number in _came[first:]:
            listener = signal.getsignal(number)
            if callable(listener) and listener is not signal.default_int_handler:
                listener(number, None)


class Notice:
    """Whether a training was asked to stop. A second Ctrl-C stops it at once, at the last checkpoint."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
        elif number == signal.SIGINT:
            _interrupt(number, frame)

    def given(self, trainer: Trainer) -> bool:
        """The same answer on every process, so that all save together."""
        if trainer.world_size == 1:
            return self.signal is not None
        return trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def listening(self) -> AbstractContextManager[None]:
        return handled_by(self._hear)
