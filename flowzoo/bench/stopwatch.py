"""Laps of equally many steps: the first is for warming up, the others count."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from flowzoo.runs.store import Run


class Enough(Exception):
    """All laps are taken."""


class Stopwatch:
    """Told of the end of every `steps`, it keeps the seconds a step, and raises Enough after `repeats` laps.

    Or after the lap in which `seconds` are over. The first lap does not count: compilation is in it. `ready` is called
    at its end, for others to wait for each other.
    """

    def __init__(self, steps: int, repeats: int, seconds: float, ready: Callable[[], object] = lambda: None) -> None:
        self.steps, self.repeats, self.seconds, self.ready = steps, repeats, seconds, ready
        self.laps: list[float] = []  # seconds a step
        self.warming = 0.0  # seconds from the making of the watch to the first lap that counts
        self._made = time.perf_counter()
        self._last: float | None = None

    def tick(self) -> None:
        """The device must be done with the lap."""
        now = time.perf_counter()
        if self._last is None:
            self.warming = now - self._made
            self.ready()
            self._last = time.perf_counter()
            return
        self.laps.append((now - self._last) / self.steps)
        self._last = now
        if len(self.laps) >= self.repeats or sum(self.laps) * self.steps >= self.seconds:
            raise Enough

    @property
    def rate(self) -> float:
        """Steps a second over all laps."""
        return len(self.laps) / sum(self.laps)

    def run(self, step: Callable[[], object], device: torch.device) -> None:
        """Takes all laps."""
        try:
            while True:
                for _ in range(self.steps):
                    step()
                synchronize(device)
                self.tick()
        except Enough:
            pass


class ClockedRun(Run):
    """A run folder whose every record is a lap, which ends the training when there are enough.

    A record is written after the device was waited for, so its time is that of all work before it.
    """

    def __init__(self, path: Path, watch: Stopwatch) -> None:
        super().__init__(path)
        self.watch = watch

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        super().append_metrics(record)
        self.watch.tick()


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
