"""Successive halving without a master: who goes on is read from the run folders of a sweep. No torch.

Asynchronous (Li et al. 2020, *A System for Massively Parallel Hyperparameter Tuning*), in its form that stops and
never resumes: a run that comes to a rung is compared with those that have come there so far, waits for nobody, and its
verdict is final. Both are kept in its `rungs.json`, so a run that is resumed repeats no rung.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from flowzoo.runs.store import Run

FILE = "rungs.json"


@dataclass(frozen=True)
class Rungs:
    """What conf/halving builds: rungs at so many `images` seen, where the best 1/`eta` go on.

    Their FID is that of `samples` images after `steps` sampler steps at `guidance`, with EMA weights.
    """

    images: Sequence[int]
    eta: int
    samples: int
    steps: int
    guidance: float

    def before(self, steps: int, batch_size: int) -> dict[int, int]:
        """Of each rung before the last step: the step at which so many images are seen, and that number."""
        at = {-(-images // batch_size): images for images in sorted(self.images)}
        return {step: images for step, images in at.items() if step < steps}


def verdict(run: Run, images: int) -> bool | None:
    """Whether the run goes on from a rung; None where that is not decided yet."""
    return _known(run).get(str(images), {}).get("kept")


def record(run: Run, images: int, group: str, fid: float) -> None:
    """What a run scores at a rung, among those of its `group`, whose scores compare."""
    run.add_json(FILE, str(images), {"group": group, "fid": fid if isfinite(fid) else None, "kept": None})


def decide(run: Run, images: int, eta: int) -> tuple[int, int]:
    """The run's place and how many have come to the rung so far, itself included; writes whether it goes on."""
    own = _known(run)[str(images)]
    folders = [Run(path.parent) for path in run.path.parent.glob(f"*/{FILE}")]
    rivals = [rung for folder in folders if (rung := _known(folder).get(str(images))) and rung["group"] == own["group"]]
    place = 1 + sum(_score(rung) < _score(own) for rung in rivals)
    kept = own["fid"] is not None and place <= max(1, len(rivals) // eta)
    run.add_json(FILE, str(images), {**own, "kept": kept, "place": place, "among": len(rivals)})
    return place, len(rivals)


def _score(rung: Mapping[str, Any]) -> float:
    return inf if rung["fid"] is None else rung["fid"]


def _known(run: Run) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        return json.loads((run.path / FILE).read_text())
    return {}
