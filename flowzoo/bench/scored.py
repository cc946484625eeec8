"""The scoring of untrained runs in folders of their own: how long each row took."""

import os
import time
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

from omegaconf import DictConfig
from rich.progress import Progress

from flowzoo.build import jobs_of
from flowzoo.job import Job, Setting, Stack
from flowzoo.judge import Judge
from flowzoo.scoring import Place, Scoring, score
from flowzoo.training.checkpoint import BEST, save_weights, weights_of


class Row(NamedTuple):
    """A row of results, by the time from the row before it to its own."""

    seconds: float
    steps: int
    guidance: float
    nfe: int


class Clock:
    """Keeps the rows of several runs in the order in which they are written."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.last = time.perf_counter()

    def note(self, setting: Setting, nfe: int) -> None:
        now = time.perf_counter()
        self.rows.append(Row(now - self.last, setting.steps, setting.guidance, nfe))
        self.last = now


class ClockedScoring(Scoring):
    """Tells a clock of each row that it has written."""

    def __init__(self, job: Job, judge: Judge, clock: Clock) -> None:
        super().__init__(job, judge)
        self.clock = clock

    def write(self, place: Place, *scored: Any) -> dict[str, Any]:
        row = super().write(place, *scored)
        self.clock.note(place.setting, row["nfe"])
        return row


def scored(cfgs: Sequence[DictConfig]) -> list[Row]:
    """All runs in one program, each raw and EMA."""
    jobs = jobs_of(cfgs)
    for job in jobs:
        job.run.make(job.config, job.variant)
    stack = Stack(jobs)
    _seem_trained(stack)
    judge, clock = Judge(jobs[0]), Clock()
    scorings = {i: ClockedScoring(job, judge, clock) for i, job in enumerate(jobs)}
    score(scorings, stack, BEST, Progress(disable=True))
    return clock.rows


def _seem_trained(stack: Stack) -> None:
    """The runs share one file of initial weights."""
    rows, average = stack.network.flat.detach()[:1], copy(stack.first.ema)
    average.start(rows)
    first, *others = [run.path / "checkpoints" / BEST for run in stack.runs]
    save_weights(first, weights_of(stack.network, {"weights": rows, "ema": average.state()}, 0), 1, 0.0)
    for path in others:
        path.parent.mkdir(exist_ok=True)
        os.link(first, path)
