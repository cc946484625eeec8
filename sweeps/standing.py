"""Where each run of a sweep stands: from its folder, its lock and SLURM, writing nothing."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from flowzoo.runs.check import FOLDER_NAME
from flowzoo.runs.lock import LOCK, Held
from flowzoo.runs.store import FINISHED, STATES, Run, RunError
from flowzoo.runs.text import key_of
from sweeps.definition import load, sweep_names
from sweeps.manifest import PLAN, Manifest, Planned, departure
from sweeps.slurm import Job, jobs_as_far_as_known
from sweeps.words import place

# A run's own states, then: running without a living owner, and with a status that cannot be read.
ALL_STATES = (*STATES, "lost", "damaged")
REPORT = "report.html"  # in a folder that analysis.report made
TAIL = 8192  # bytes; a record of metrics.jsonl has some hundreds


@dataclass(frozen=True)
class Standing:
    """`steps` is None where it is not known, `eta`, seconds of training that are left, where the run is not training.

    `job` is the run's latest SLURM job with its state. `note` says why it failed, who trains it, or what differs from
    the plan.
    """

    id: str
    variant: str
    seed: int | None
    state: str
    step: int
    steps: int | None
    eta: float | None
    attempt: int
    job: str
    note: str


def folder_of(sweep: str, words: list[str]) -> Path:
    """The folder of a sweep that has been planned or run: named itself, or by the sweep and `runs=` and `sweep=`.

    Raises ValueError for an unknown sweep or word and RunError where nothing is there.
    """
    if unknown := [word for word in words if key_of(word) not in ("runs", "sweep") or "=" not in word]:
        raise ValueError(f"{unknown[0]}: allowed are runs=DIR and sweep=NAME")
    if sweep not in sweep_names():
        if Path(sweep).is_dir():
            return Path(sweep)
        if Path(sweep).is_file():
            sweep = load(sweep).name
        elif not FOLDER_NAME.holds(sweep) or not place(sweep, [w for w in words if key_of(w) == "runs"]).is_dir():
            known = ", ".join(sweep_names())
            raise ValueError(f"sweep {sweep}: allowed are {known}, a YAML file, or the folder of a sweep")
    folder = place(sweep, words)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}: nothing of this sweep is planned or has run; runs=DIR says where")
    return folder


def run_folders(folder: Path) -> list[str]:
    """The names of all run folders of a sweep, whole or not. A report may lie beside them."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(name for name in names if not (folder / name / REPORT).exists())


def standings(folder: Path) -> list[Standing]:
    """Each planned run of a sweep's folder, or each run folder where there is no plan. Raises RunError."""
    if (folder / PLAN).exists():
        return standing(Manifest.read(folder))
    jobs = jobs_as_far_as_known(folder)
    return [_standing(Run(folder / name), None, "", jobs.get(name)) for name in run_folders(folder)]


def standing(manifest: Manifest) -> list[Standing]:
    """One row a planned run, in the order of the plan. Raises RunError."""
    jobs, version = jobs_as_far_as_known(manifest.folder), manifest.code_version
    return [_standing(manifest.run(planned), planned, version, jobs.get(planned.id)) for planned in manifest.runs]


def _standing(run: Run, planned: Planned | None, version: str, job: Job | None) -> Standing:
    notes: list[str] = []
    try:
        status = run.status
        state = status.get("state", "queued")
    except RunError as error:
        status, state = {}, "damaged"
        notes.append(str(error))
    if state == "running" and (gone := lost(run, job)):
        with suppress(RunError):
            status = run.status  # it may have ended since
        state = status.get("state", "queued")
        if state == "running":
            # requeued by SLURM, it goes on by itself
            state = "preempted" if job and job.active and job.state != "RUNNING" else "lost"
            notes.append(gone)
    step, steps = status.get("step") or 0, planned.steps if planned else status.get("steps")
    eta = None
    if state in ("running", "lost", "failed", "preempted"):
        records = _tail(run.path / "metrics.jsonl")
        newest = next(records, None)
        step = max(step, newest["step"] if newest else 0)
        if newest and state == "running":
            eta = _eta(run, planned, chain([newest], records), steps)
            if step == steps:
                notes.append("scoring")
    if status.get("exception") and state == "failed":
        notes.append(str(status["exception"]).strip().splitlines()[-1])
    if job and job.reason and job.state == "PENDING":
        notes.append(f"waits for {job.reason}")
    elif job and job.reason and state not in FINISHED:
        notes.append(job.reason)
    if planned and status:
        if status.get("code_version", version) != version:
            notes.append(f"code {status['code_version']}, planned {version}")
        try:
            config = config_of(run)
            same = all(config.get(k) == v for k, v in planned.config.items() if k not in ("logger", "runs", "sweep"))
            if not same and (words := departure(planned.config, config)):  # which takes longer
                first, *more = words.split(", ")
                notes.append(f"config: {first}" + (f" and {len(more)} more" if more else ""))
        except RunError as error:
            notes.append(str(error))
    return Standing(
        id=run.path.name,
        variant=planned.variant if planned else str(status.get("variant", run.path.name)),
        seed=planned.seed if planned else None,
        state=state,
        step=step,
        steps=steps,
        eta=eta,
        attempt=status.get("attempt", 0),
        job=f"{job.id} {job.state}" if job else "",
        note="; ".join(notes),
    )


def lost(run: Run, job: Job | None = None) -> str:
    """Why nobody can be training this run, by its lock and its job; empty where somebody may be.

    By this host's clock, which is right to a minute or the message is wrong; whoever takes a lock asks the file server.
    """
    held = Held.read(run.path / LOCK)
    if held is None:
        return "its process ended without a word"
    in_job = held.owner is not None and held.owner.job is not None
    ended = in_job and job is not None and not job.active and job.state != "UNKNOWN"
    if held.lost(time.time()) or ended:
        return f"{held} is gone" + (f", its job is {job.state}" if job and ended else "")
    return ""


def config_of(run: Run) -> Mapping[str, Any]:
    """config.yaml as plain values, many times faster than `Run.config`. Raises RunError."""
    path = run.path / "config.yaml"
    try:
        content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise RunError(f"cannot read {path}: it holds no config")
    return content


def _tail(path: Path) -> Iterator[Mapping[str, Any]]:
    """The last records of metrics.jsonl, the newest first; from its end alone, however long it is."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
    except OSError:
        return
    for line in reversed(lines):
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                yield record


def _eta(run: Run, planned: Planned | None, records: Iterable[Mapping[str, Any]], steps: int | None) -> float | None:
    """Seconds from now to the last step, at the speed of the last record."""
    timed = next((record for record in records if record.get("images_per_s")), None)
    if timed is None or steps is None:
        return None
    try:
        size = planned.batch_size if planned else config_of(run)["trainer"]["batch_size"]
        since = time.time() - (run.path / "metrics.jsonl").stat().st_mtime
    except (RunError, OSError, KeyError, TypeError):
        return None
    return max(0.0, (steps - timed["step"]) * size / timed["images_per_s"] - since)
