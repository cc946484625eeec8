"""flowzoo's own training, under Lightning as `flowzoo.train` runs it, and the same program in a bare loop."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from flowzoo.bench.profile import profiled
from flowzoo.bench.stopwatch import ClockedRun, Enough, Stopwatch
from flowzoo.build import jobs_of
from flowzoo.job import Stack
from flowzoo.training.fit import program_of, train_program
from flowzoo.training.processes import Alone


class Subject:
    """A program that trains the runs of `cfgs`, which have one seed, as `flowzoo.training.fit` makes it."""

    def __init__(self, cfgs: Sequence[DictConfig], folder: Path, compile_mode: str | None) -> None:
        folders = [folder / str(i) for i in range(len(cfgs))]
        for path in folders:
            path.mkdir(parents=True, exist_ok=True)
        self.jobs = jobs_of(cfgs, folders)
        self.device = self.jobs[0].loop.device
        self.program = program_of(Stack(self.jobs), compile_mode)

    def lightning(self, watch: Stopwatch) -> None:
        """The whole real path: loader, Lightning, records, average; no validation and no checkpoint within the laps.

        KeyboardInterrupt where a signal ended the training, which then saves and returns as it always does.
        """
        jobs = [replace(job, loop=replace(job.loop, log_every=watch.steps)) for job in self.jobs]
        jobs[0] = replace(jobs[0], run=ClockedRun(jobs[0].run.path, watch))
        try:
            outcome = train_program([job.run for job in jobs], jobs[0].loop, self.program, resume=False)
        except Enough:
            self.program.end()  # which Lightning leaves out where training ends by an exception
        else:
            if outcome.interrupted:
                raise KeyboardInterrupt

    def bare(self, watch: Stopwatch) -> None:
        """The same steps of the same program, called one after another."""
        watch.run(self._step(), self.device)
        self.program.end()

    def profiled(self, steps: int, top: int) -> dict[str, Any]:
        """Where the time of the same bare steps goes, as `flowzoo.bench.profile.profiled` tells it."""
        told = profiled(self._step(), self.device, steps, top)
        self.program.end()
        return told

    def _step(self) -> Callable[[], None]:
        program = self.program
        program.begin(self.device, Alone())
        batches = enumerate(program.task.batches(0))

        def step() -> None:
            number, batch = next(batches)
            program.step(batch, number)

        return step
