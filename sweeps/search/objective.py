"""What a search asks and what it is told: the one interface between the queue of trials and what judges them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Verdict:
    """FID (down) and CLIP score (up) of a trial; or why it has none: it `diverged`, or was `stopped` early."""

    scores: tuple[float, float] | None
    ended: str = "done"
    run: str = ""  # name of the run folder


class Busy(Exception):
    """Another process trains what this trial needs: the trial waits for its turn."""


class Objective(Protocol):
    """Judges parameters. `batch` trials are asked at once; Verdicts come back in their order.

    `check` raises ValueError for a range that is not allowed, before anything is written. `judge` raises Busy, and
    KeyboardInterrupt once everything is saved after a signal.
    """

    batch: int

    def check(self, low: Mapping[str, float], high: Mapping[str, float]) -> None: ...

    def described(self) -> Mapping[str, object]:
        """All else that decides a score: what must stay the same in a study."""

    def judge(self, asked: Sequence[Mapping[str, float]]) -> Sequence[Verdict]: ...
