"""What a plan will take: steps that are left, and hours at the speed that runs alike have had, or by the bench."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from flowzoo.runs.store import FINISHED, Run, RunError
from sweeps.benched import Estimate, estimate
from sweeps.manifest import PLAN, Manifest, Planned

LOOKED_AT = 8  # runs of a kind whose speed is read, the latest


@dataclass(frozen=True)
class Speed:
    """Images a second of one run, the median of runs alike; where they ran."""

    images_per_s: float
    runs: int
    folders: tuple[str, ...]
    hosts: tuple[str, ...]

    def __str__(self) -> str:
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        return f"{self.images_per_s:,.0f} images/s, by {runs} of {', '.join(self.folders)} on {', '.join(self.hosts)}"


@dataclass(frozen=True)
class Part:
    """The runs of a plan that are alike. `hours` are of one process with its devices; None without any speed."""

    dataset: str
    backbone: str
    runs: int
    finished: int
    steps: int
    steps_left: int
    hours: float | None
    speed: Speed | Estimate | None
    cpu_hours: float | None = None  # where the speed is an estimate


def parts(manifest: Manifest) -> list[Part]:
    """The plan by kind of run, with what is left to train. Raises RunError."""
    kinds: dict[str, list[Planned]] = {}
    for planned in manifest.runs:
        kinds.setdefault(_kind(planned), []).append(planned)
    speeds = _speeds(manifest, kinds.keys())
    found = [_part(manifest, runs, speeds.get(kind)) for kind, runs in kinds.items()]
    return [
        _estimated(part, runs[0], "engine=stacked" in manifest.execution) if part.hours is None else part
        for part, runs in zip(found, kinds.values(), strict=True)
    ]


def _estimated(part: Part, planned: Planned, stacked: bool) -> Part:
    if not (part.steps_left and (speed := estimate(planned.config, stacked))):
        return part
    images = part.steps_left * planned.batch_size
    return replace(part, hours=images * speed.seconds / 3600, speed=speed, cpu_hours=images * speed.cpu_seconds / 3600)


def _part(manifest: Manifest, runs: list[Planned], speed: Speed | None) -> Part:
    status = {planned.id: manifest.run(planned).status for planned in runs}
    finished = [planned for planned in runs if status[planned.id].get("state") in FINISHED]
    left = {p.id: max(0, p.steps - (status[p.id].get("step") or 0)) for p in runs if p not in finished}
    images = sum(left[planned.id] * planned.batch_size for planned in runs if planned.id in left)
    first = runs[0]
    return Part(
        dataset=first.dataset,
        backbone=first.backbone,
        runs=len(runs),
        finished=len(finished),
        steps=sum(planned.steps for planned in runs),
        steps_left=sum(left.values()),
        hours=None if speed is None else images / speed.images_per_s / 3600,
        speed=speed,
    )


def _kind(planned: Planned) -> str:
    """All that says how fast a run trains."""
    config = planned.config
    trainer = {key: config["trainer"].get(key) for key in ("batch_size", "precision", "compile", "accelerator")}
    trainer |= {key: config["trainer"].get(key) for key in ("devices", "num_nodes", "strategy")}
    size = config["data"].get("source", {}).get("image_size")
    told: list[Any] = [planned.dataset, config["backbone"], size, config["text"], config["autoencoder"], trainer]
    return json.dumps(told, sort_keys=True)


def _speeds(manifest: Manifest, wanted: Iterable[str]) -> dict[str, Speed]:
    """The speed of each kind that has been measured in this sweep's folder, else in those beside it."""
    speeds: dict[str, Speed] = {}
    for group in ([manifest], _beside(manifest.folder)):
        found: dict[str, list[tuple[float, Run]]] = {}
        for other in group:
            for planned in other.runs:
                kind, run = _kind(planned), other.run(planned)
                if kind in wanted and kind not in speeds and (run.path / "metrics.jsonl").exists():
                    found.setdefault(kind, []).append(((run.path / "metrics.jsonl").stat().st_mtime, run))
        for kind, runs in found.items():
            latest = [run for _, run in sorted(runs, key=lambda one: one[0])[-LOOKED_AT:]]
            if measured := {run: speed for run in latest if (speed := _speed(run))}:
                hosts = {str(run.status.get("host")) for run in measured}
                folders = {str(run.path.parent) for run in measured}
                value = median(measured.values())
                speeds[kind] = Speed(value, len(measured), tuple(sorted(folders)), tuple(sorted(hosts)))
    return speeds


def _beside(folder: Path) -> list[Manifest]:
    plans = []
    for path in sorted(folder.parent.glob(f"*/{PLAN}")):
        with suppress(RunError):  # whose it is will be told
            if path.parent != folder:
                plans.append(Manifest.read(path.parent))
    return plans


def _speed(run: Run) -> float | None:
    """The median over a run's records but the first, which holds compilation."""
    values = [record["images_per_s"] for record in run.metrics() if record.get("images_per_s")]
    return median(values[1:] or values) if values else None
