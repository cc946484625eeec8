"""Who hears of a signal, and when."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

import pytest

from flowzoo.runs.signals import STOPS, Notice, handing_on, shielded, stoppable

pytestmark = pytest.mark.usefixtures("in_a_terminal")


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


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
            send(signal.SIGUSR2)
            heard.append("the step ended")
        heard.append("saved and released")

    with pytest.raises(SystemExit):
        job()
    assert notice.signal is signal.SIGUSR2
    assert heard == ["the step ended", "saved and released", "requeued"]


def test_outside_of_training_a_notice_stops_what_runs(heard: list[str]) -> None:
    @handing_on()
    @stoppable
    def job() -> None:
        try:
            send(signal.SIGUSR2)
            heard.append("went on")
        finally:
            heard.append("released")

    with pytest.raises(SystemExit):
        job()
    assert heard == ["released", "requeued"]


@pytest.mark.parametrize("number", STOPS)
def test_where_nobody_listened_it_is_a_keyboard_interrupt(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), handing_on():
        send(number)


def test_what_was_handed_on_is_not_handed_on_again(heard: list[str]) -> None:
    with pytest.raises(SystemExit), handing_on():
        send(signal.SIGUSR2)
    with handing_on():
        pass
    assert heard == ["requeued"]


@pytest.mark.parametrize("number", STOPS)
def test_what_is_shielded_comes_to_its_end(number: signal.Signals) -> None:
    seen = []

    @shielded
    def releases() -> None:
        for _ in range(3):
            send(number)
        seen.append("released")

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        releases()
    assert seen == ["released"]
    assert signal.getsignal(number) is before


def test_the_innermost_of_shielded_and_stoppable_counts() -> None:
    seen: list[str] = []

    @shielded
    def inner() -> None:
        send()
        seen.append("inner went on")

    @stoppable
    def works() -> None:
        inner()
        seen.append("not reached: what waited is raised where the shield ends")

    @shielded
    def outer() -> None:
        with pytest.raises(KeyboardInterrupt):
            works()
        send()
        seen.append("outer went on")
        with pytest.raises(KeyboardInterrupt):
            works()  # a signal waits: it does not even begin
        seen.append("saved")

    outer()
    assert seen == ["inner went on", "outer went on", "saved"]


def test_an_interruption_on_its_way_out_is_not_interrupted() -> None:
    seen = []

    @stoppable
    def works() -> None:
        try:
            send()
        finally:
            try:
                raise OSError("something else while cleaning up")
            except OSError:
                send(signal.SIGINT)
                seen.append("clean")

    with pytest.raises(KeyboardInterrupt):
        works()
    assert seen == ["clean"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_a_destructor_swallowed_does_not_hinder_the_next() -> None:
    class Careless:
        def __del__(self) -> None:
            send()

    @stoppable
    def works() -> None:
        Careless()  # Python prints the KeyboardInterrupt and goes on
        send()
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        works()


def test_a_failure_that_was_recorded_gives_way_to_the_signal() -> None:
    @shielded
    def fails() -> None:
        send()
        raise ValueError("recorded")

    with pytest.raises(KeyboardInterrupt) as stopped:
        fails()
    assert isinstance(stopped.value.__cause__, ValueError)


def test_a_second_ctrl_c_ends_training_at_once() -> None:
    notice = Notice()

    @stoppable
    def trains() -> None:
        with notice.listening():
            send(signal.SIGTERM)
            send(signal.SIGTERM)  # a scheduler says it to every process of a step, and again
            send(signal.SIGINT)
            raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        trains()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_was_ignored_from_the_start_stays_ignored(number: signal.Signals) -> None:
    code = (
        "import os, signal\n"
        "from flowzoo.runs.signals import stoppable\n"
        f"stoppable(lambda: os.kill(os.getpid(), {int(number)}))()\n"
        "print('went on')"
    )
    ignoring = lambda: signal.signal(number, signal.SIG_IGN)  # noqa: E731
    done = subprocess.run([sys.executable, "-c", code], preexec_fn=ignoring, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_signal_in_a_destructor_is_not_lost(in_a_terminal: None) -> None:
    ended = []

    class Kept:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            ended.append(True)

    def work() -> None:
        kept = Kept()
        del kept
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        shielded(lambda: stoppable(work)())()
    assert ended == [True, True]
