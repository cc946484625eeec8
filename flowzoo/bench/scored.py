"""The scoring of untrained runs in folders of their own: how long each row took."""

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import Progress

from flowzoo.build import Built, build, build_stack, device_of, source_of
from flowzoo.runs.store import Run
from flowzoo.scoring import Evaluation, Scoring, Setting
from flowzoo.scoring_stacked import score_stack
from flowzoo.training.checkpoint import BEST, prefixed, save_weights


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

    def __init__(self, cfg: DictConfig, run: Run, evaluation: Evaluation, clock: Clock) -> None:
        super().__init__(cfg, run, evaluation)
        self.clock = clock

    def write(self, setting: Setting, *scored: Any) -> dict[str, Any]:
        row = super().write(setting, *scored)
        self.clock.note(setting, row["nfe"])
        return row


def score_together(cfgs: Sequence[DictConfig]) -> list[Row]:
    """All runs in one program, each raw and EMA."""
    runs, _ = _untrained(cfgs)
    built = build_stack(cfgs, [run.path for run in runs], source_of(cfgs[0], "train"))
    evaluation = Evaluation(cfgs[0], built.autoencoder, built.text, source_of(cfgs[0], "val"), device_of(cfgs[0]))
    clock = Clock()
    scorings = {i: ClockedScoring(cfgs[i], run, evaluation, clock) for i, run in enumerate(runs)}
    score_stack(cfgs, scorings, built, Progress(disable=True))
    return clock.rows


def score_alone(cfgs: Sequence[DictConfig]) -> list[Row]:
    """One run, the first."""
    cfg = cfgs[0]
    (run,), built = _untrained(cfgs[:1])
    evaluation = Evaluation(cfg, built.autoencoder, built.text, source_of(cfg, "val"), device_of(cfg))
    clock = Clock()
    scoring = ClockedScoring(cfg, run, evaluation, clock)
    list(scoring.score(built, run.path / "checkpoints" / BEST, Progress(disable=True)))
    return clock.rows


def _untrained(cfgs: Sequence[DictConfig]) -> tuple[list[Run], Built]:
    """Folders of runs that seem trained; they share one file of initial weights."""
    runs = [Run.create(cfg) for cfg in cfgs]
    built = build(cfgs[0], runs[0].path, source_of(cfgs[0], "train"))
    average = instantiate(cfgs[0].ema, backbone=built.backbone).state_dict()
    best = runs[0].path / "checkpoints" / BEST
    save_weights(best, prefixed(built.backbone.state_dict()), average, 1, 0.0)
    for run in runs[1:]:
        (run.path / "checkpoints").mkdir(exist_ok=True)
        os.link(best, run.path / "checkpoints" / BEST)
    return runs, built
