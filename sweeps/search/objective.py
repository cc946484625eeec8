"""What a search asks and what it is told: the one interface between the queue of trials and what judges them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from flowzoo.runs.files import RunError


@dataclass(frozen=True)
class Verdict:
    """Scores of a trial by name, None where one cannot be said; or why it has none: `diverged`, or `stopped` early."""

    scores: Mapping[str, float | None] | None
    ended: str = "done"
    run: str = ""  # name of the run folder


def judged_by(verdict: Verdict, objectives: Iterable[str]) -> Verdict:
    """The verdict with the scores of these alone, in this order; diverged where one is not finite.

    Raises RunError where one is missing.
    """
    if verdict.scores is None:
        return verdict
    told = {name: verdict.scores.get(name) for name in objectives}
    if lacking := [name for name, score in told.items() if score is None]:
        have = ", ".join(name for name, score in verdict.scores.items() if score is not None)
        where = f"{verdict.run}: " if verdict.run else ""
        raise RunError(f"{where}there is no {lacking[0]}, by which the search judges; there are {have or 'no scores'}")
    if not all(math.isfinite(score) for score in told.values() if score is not None):
        return replace(verdict, scores=None, ended="diverged")  # samples that are not finite
    return replace(verdict, scores=told)


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
