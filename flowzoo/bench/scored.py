"""The scoring of untrained runs in folders of their own: how long each row took."""

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.progress import Progress

from flowzoo.build import Built, build, device_of, source_of
from flowzoo.runs.store import Run
from flowzoo.scoring import Evaluation, Scoring, Setting
from flowzoo.scoring_loop import score
from flowzoo.training.checkpoint import BEST, save_weights, weights_of
from flowzoo.training.ema import EMA


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


def scored(cfgs: Sequence[DictConfig]) -> list[Row]:
    """All runs in one program, each raw and EMA."""
    runs = [Run.create(cfg) for cfg in cfgs]
    built = build(cfgs, [run.path for run in runs], source_of(cfgs[0], "train"))
    _seem_trained(cfgs[0], runs, built)
    evaluation = Evaluation(cfgs[0], built.autoencoder, built.text, source_of(cfgs[0], "val"), device_of(cfgs[0]))
    clock = Clock()
    scorings = {i: ClockedScoring(cfgs[i], run, evaluation, clock) for i, run in enumerate(runs)}
    score(scorings, built, BEST, Progress(disable=True))
    return clock.rows


def _seem_trained(cfg: DictConfig, runs: Sequence[Run], built: Built) -> None:
    """The runs share one file of initial weights."""
    rows = built.network.flat.detach()[:1]
    average: EMA = instantiate(cfg.ema)
    average.start(rows)
    best = runs[0].path / "checkpoints" / BEST
    save_weights(best, weights_of(built.network, {"weights": rows, "ema": average.state()}, 0), 1, 0.0)
    for run in runs[1:]:
        (run.path / "checkpoints").mkdir(exist_ok=True)
        os.link(best, run.path / "checkpoints" / BEST)
