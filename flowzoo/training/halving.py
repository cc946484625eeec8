"""Early stopping: runs that have come to a rung are scored with few samples, and those that do not keep up stop."""

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, replace
from hashlib import sha256

import torch
from rich.console import Console

from flowzoo.job import Evaluation, Setting, Stack
from flowzoo.judge import Judge, Sampler
from flowzoo.metrics.fid import FID
from flowzoo.runs.store import RunError
from flowzoo.training.checkpoint import LAST, read_row
from flowzoo.training.rungs import Rungs, decide, record, verdict


class Halving:
    """The rungs of jobs that are trained together. Jobs without `halving` have none."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.runs, first = stack, stack.runs, stack.first
        self.at: dict[int, int] = {}  # images seen, by step
        if first.halving is None:
            return
        self.rungs = first.halving
        self.at = self.rungs.before(first.loop.steps, first.loop.batch_size)
        if self.at:
            fid = FID()
            self.judge = Judge(replace(first, evaluation=_judged(first.evaluation, self.rungs, fid)))
            if fid.none:
                raise RunError(f"halving judges by FID; {fid.none}")

    def after(self, step: int) -> int | None:
        """The step of the first rung past `step`; None past the last one."""
        return min((at for at in self.at if at > step), default=None)

    def stopped(self, places: Sequence[int], step: int) -> list[int]:
        """Which of the runs at these places, whose last checkpoint is of `step`, do not go on.

        Scores those that are at a rung and are not decided yet: all, and only then decides on each.
        """
        images = self.at.get(step)
        if images is None:
            return []
        todo = [i for i in places if verdict(self.runs[i], images) is None]
        if todo:
            for i, fid in zip(todo, self._fids(todo), strict=True):
                record(self.runs[i], images, self._group(i), fid)
            for i in todo:
                self._say(i, images, *decide(self.runs[i], images, self.rungs.eta))
        return [i for i in places if not verdict(self.runs[i], images)]

    def _fids(self, places: Sequence[int]) -> list[float]:
        rungs, network = self.rungs, self.stack.network
        self.judge.move()
        paths = [self.runs[i].path / "checkpoints" / LAST for i in places]
        rows = torch.stack([read_row(path, network, "ema")[0] for path in paths])
        torch.compiler.reset()  # of training; it compiles again, as after any interruption
        sampler, fids = Sampler(self.judge, self.stack, rows, places), []
        for first in range(0, len(places), sampler.at_once):
            members = range(first, min(first + sampler.at_once, len(places)))
            scores = sampler.score(members, Setting(rungs.steps, rungs.guidance), lambda n: None)
            fids += [fid for one in scores if (fid := one.numbers["fid"]) is not None]
        torch.compiler.reset()
        return fids

    def _group(self, i: int) -> str:
        """Runs of one group compare: the same data, backbone, seed, sampler setting and protocol."""
        job, judge = self.stack.jobs[i], self.judge
        solver, settings = judge.evaluation.solver, [asdict(setting) for setting in judge.evaluation.settings]
        assert job.train is not None
        parts = [job.train.name, job.train.fingerprint, job.backbone_label, job.seed, judge.protocol]
        parts += [solver.name, solver.grid.name, solver.shift, settings]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]

    def _say(self, i: int, images: int, place: int, among: int) -> None:
        goes_on = "goes on" if verdict(self.runs[i], images) else "stops"
        told = f"{self.runs[i].path.name}  {place} of {among} at {images} images: {goes_on}"
        Console().print(told, highlight=False, soft_wrap=True, markup=False)


def _judged(evaluation: Evaluation, rungs: Rungs, fid: FID) -> Evaluation:
    """How rungs are scored: in one setting, and without a shift of the run's own, which would not compare."""
    solver = copy(evaluation.solver)
    solver.shift = 1.0
    settings = (Setting(rungs.steps, rungs.guidance),)
    return replace(evaluation, samples=rungs.samples, settings=settings, solver=solver, metrics=(fid,))
