"""`python -m flowzoo.bench.phases FILE [--padded] WORDS`: `python -m sweeps WORDS`, with clocks around its phases.

At the end, whatever the end, the seconds of each phase are in the JSON file FILE. --padded: without `Text.merged`.
"""

import functools
import json
import runpy
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flowzoo.imports import swiftly

PHASES = ("start", "train", "sample", "score", "other")


class Clocks:
    """Seconds by phase. A phase inside another is not counted as part of that; outside of all it is `base`'s time."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.base = "start"
        self._inside: list[str] = []
        self._last = time.perf_counter()

    def turn(self) -> None:
        """What has passed belongs to the phase that it was spent in, work that is left on a GPU included."""
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self._inside[-1] if self._inside else self.base] += now - self._last
        self._last = now

    def within(self, owner: Any, name: str, phase: str) -> None:
        """From now on every call of `owner`'s function is that phase."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            self.turn()
            self._inside.append(phase)
            if phase == "train":
                self.base = "other"  # what comes before is the start
            try:
                return function(*args, **kwargs)
            finally:
                self.turn()
                self._inside.pop()

        setattr(owner, name, clocked)


def main(file: Path, words: list[str]) -> None:
    clocks = Clocks()
    with swiftly():
        import torch

        from flowzoo import stacks
        from flowzoo.encoders.text import unmerged
        from flowzoo.judge import Judge
        from flowzoo.sampling.generate import Generator
        from flowzoo.tasks.formulation import FormulationTask
        from flowzoo.training import lifecycle

    clocks.within(lifecycle, "fit", "train")
    # Of every stack, where memory makes several of the variants: parts, the reference, images and captions.
    clocks.within(stacks, "jobs_left", "start")
    clocks.within(Judge, "__init__", "start")
    clocks.within(FormulationTask, "begin", "start")
    clocks.within(Judge, "score", "score")
    clocks.within(Generator, "__call__", "sample")
    padded = words[:1] == ["--padded"]
    sys.argv = ["sweeps", *words[padded:]]
    try:
        with unmerged() if padded else nullcontext():
            runpy.run_module("sweeps", run_name="__main__", alter_sys=True)
    finally:
        clocks.turn()
        gpu = torch.cuda.get_device_name() if torch.cuda.is_initialized() else None
        file.write_text(json.dumps({"seconds": clocks.seconds, "gpu": gpu}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
