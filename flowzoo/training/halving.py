"""Early stopping: runs that have come to a rung are scored with few samples, and those that do not keep up stop."""

import json
from collections.abc import Sequence
from hashlib import sha256

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from flowzoo.build import Built, device_of
from flowzoo.data.source import Source
from flowzoo.runs.identity import backbone_label
from flowzoo.runs.store import Run, RunError, data_of
from flowzoo.scoring import Evaluation
from flowzoo.scoring_loop import Sampler
from flowzoo.training.checkpoint import LAST, read_row
from flowzoo.training.rungs import Rungs, decide, record, verdict


class Halving:
    """The rungs of runs that are trained together. Without conf/halving there are none."""

    def __init__(self, cfgs: Sequence[DictConfig], runs: Sequence[Run], built: Built, val: Source) -> None:
        self.cfgs, self.runs, self.built = cfgs, runs, built
        cfg = cfgs[0]
        self.at: dict[int, int] = {}  # images seen, by step
        if cfg.get("halving") is None:
            return
        self.rungs: Rungs = instantiate(cfg.halving)
        self.at = self.rungs.before(cfg.trainer.steps, cfg.trainer.batch_size)
        if self.at:
            judged = _judged(cfg, self.rungs)
            self.evaluation = Evaluation(judged, built.autoencoder, built.text, val, device_of(cfg))
            if self.evaluation.no_fid:
                raise RunError(f"halving judges by FID; {self.evaluation.no_fid}")

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
        evaluation, rungs = self.evaluation, self.rungs
        for part in (evaluation.autoencoder, evaluation.text):
            part.to(evaluation.device)
        paths = [self.runs[i].path / "checkpoints" / LAST for i in places]
        rows = torch.stack([read_row(path, self.built.network, "ema")[0] for path in paths])
        torch.compiler.reset()  # of training; it compiles again, as after any interruption
        sampler, fids = Sampler(evaluation, self.built, rows, places), []
        for first in range(0, len(places), sampler.at_once):
            members = range(first, min(first + sampler.at_once, len(places)))
            scores = sampler.score(members, rungs.steps, rungs.guidance, lambda n: None)
            fids += [one.fid for one in scores if one.fid is not None]
        torch.compiler.reset()
        return fids

    def _group(self, i: int) -> str:
        """Runs of one group compare: the same data, backbone, seed, sampler setting and protocol."""
        cfg, judged = self.cfgs[i], self.evaluation.cfg
        setting = [OmegaConf.to_container(part, resolve=True) for part in (judged.solver, judged.evaluation.settings)]
        data = data_of(self.runs[i].path)
        parts = [cfg.data.name, data, backbone_label(cfg), cfg.seed, self.evaluation.protocol, setting]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]

    def _say(self, i: int, images: int, place: int, among: int) -> None:
        goes_on = "goes on" if verdict(self.runs[i], images) else "stops"
        told = f"{self.runs[i].path.name}  {place} of {among} at {images} images: {goes_on}"
        Console().print(told, highlight=False, soft_wrap=True, markup=False)


def _judged(cfg: DictConfig, rungs: Rungs) -> DictConfig:
    """The config under which rungs are scored: one setting, and no shift of the run's own, which would not compare."""
    own = cfg.copy()
    OmegaConf.set_struct(own, False)
    own.evaluation.samples = rungs.samples
    own.evaluation.settings = [{"steps": rungs.steps, "guidance": rungs.guidance}]
    if "shift" in own.solver:
        own.solver.shift = 1.0
    return own
