"""Who hears of a signal, and when."""

import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from flowzoo.training.signals import Notice, handing_on


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What happened, in order; a scheduler's library listens to SIGUSR2 before all else, and exits."""
    events: list[str] = []

    def requeue(number: int, _: FrameType | None) -> None:
        events.append("requeued")
        raise SystemExit(-1)

    before = signal.signal(signal.SIGUSR2, requeue)
    yield events
    signal.signal(signal.SIGUSR2, before)


def test_a_notice_goes_on_after_all_is_saved(heard: list[str]) -> None:
    notice = Notice()

    @handing_on()
    def job() -> None:
        with notice.listening():
            os.kill(os.getpid(), signal.SIGUSR2)
            heard.append("the step ended")
        heard.append("saved and released")

    with pytest.raises(SystemExit):
        job()
    assert notice.signal is signal.SIGUSR2
    assert heard == ["the step ended", "saved and released", "requeued"]


def test_outside_of_training_a_notice_stops_what_runs(heard: list[str]) -> None:
    @handing_on()
    def job() -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
            heard.append("went on")
        finally:
            heard.append("released")

    with pytest.raises(SystemExit):
        job()
    assert heard == ["released", "requeued"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nobody_listened_it_is_a_keyboard_interrupt(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), handing_on():
        os.kill(os.getpid(), number)


def test_what_was_handed_on_is_not_handed_on_again(heard: list[str]) -> None:
    with pytest.raises(SystemExit), handing_on():
        os.kill(os.getpid(), signal.SIGUSR2)
    with handing_on():
        pass
    assert heard == ["requeued"]
