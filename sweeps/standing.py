"""Where each run of a sweep stands: from its folder, its lock and SLURM, writing nothing."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from flowzoo.runs.columns import config_columns, swept
from flowzoo.runs.files import RunError
from flowzoo.runs.finding import folders_in
from flowzoo.runs.layout import FINISHED, METRICS, PLAN
from flowzoo.runs.limits import FOLDER_NAME
from flowzoo.runs.reading import RunFolder, is_speed
from flowzoo.runs.text import key_of
from sweeps.choice import Done
from sweeps.definition import load, sweep_names
from sweeps.manifest import Manifest, Planned, departure, is_plan, kept_plan
from sweeps.slurm import Job, jobs_as_far_as_known
from sweeps.words import place

NONE_DONE = Done([])


@dataclass(frozen=True)
class Standing:
    """`steps` is None where it is not known, `eta`, seconds of training that are left, where the run is not training.

    `swept` is what the run has otherwise than others of its sweep, `optimizer.lr=0.001`. `job` is its latest SLURM job
    with its state. `note` says why it failed, who trains it, or what differs from the plan, `unreadable` what of its
    folder cannot be read.
    """

    id: str
    variant: str
    swept: str
    seed: int | None
    state: str
    step: int
    steps: int | None
    eta: float | None
    attempt: int
    job: str
    note: str
    unreadable: list[str] = field(default_factory=list)


def folder_of(sweep: str, words: list[str]) -> Path:
    """The folder of a sweep that has been planned or run: named itself, or by the sweep or its plan, `runs=`, `sweep=`.

    Raises ValueError for an unknown sweep or word and RunError where nothing is there.
    """
    if unknown := [word for word in words if key_of(word) not in ("runs", "sweep") or "=" not in word]:
        raise ValueError(f"{unknown[0]}: allowed are runs=DIR and sweep=NAME")
    if is_plan(sweep):
        return kept_plan(sweep, words).folder
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


def standings(folder: Path, done: Done = NONE_DONE) -> list[Standing]:
    """Each planned run of a sweep's folder, or each run folder where there is no plan. Raises RunError."""
    if (folder / PLAN).exists():
        return standing(Manifest.read(folder), done)
    jobs = jobs_as_far_as_known(folder)
    runs = [RunFolder(folder / name, ended=_ended(jobs.get(name))) for name in folders_in(folder)]
    there = [run for run in runs if run.is_run]
    told = swept([config_columns(run.config) for run in there])
    return [_standing(run, None, "", jobs.get(run.name), own) for run, own in zip(there, told, strict=True)]


def standing(manifest: Manifest, done: Done = NONE_DONE) -> list[Standing]:
    """One row a planned run, in the order of the plan, as its folder says or a table of raw rows. Raises RunError."""
    jobs, version = jobs_as_far_as_known(manifest.folder), manifest.code_version
    rows = []
    for planned in manifest.runs:
        job = jobs.get(planned.id)
        row = _standing(manifest.read_run(planned, _ended(job)), planned, version, job, manifest.swept[planned.id])
        rows.append(row if row.state in FINISHED else _as_recorded(row, planned, done))
    return rows


def _as_recorded(row: Standing, planned: Planned, done: Done) -> Standing:
    """With what tables say of a run that is not finished by its folder."""
    if (recorded := done.of(planned)) is None:
        return row
    where = recorded.path.parent
    if done.has(planned):
        step = recorded.status["step"]
        return replace(row, state=recorded.state, step=step, steps=planned.steps, eta=None, note=f"in {where}")
    return replace(row, note="; ".join(filter(None, [row.note, f"{where} lacks {done.lacks(planned)} of its rows"])))


def _ended(job: Job | None) -> str:
    return job.state if job and not job.active and job.state != "UNKNOWN" else ""


def _standing(run: RunFolder, planned: Planned | None, version: str, job: Job | None, swept: str) -> Standing:
    notes: list[str] = []
    state, status = run.state, run.status
    if state == "lost":
        notes.append(run.why_lost)
        if job and job.active and job.state != "RUNNING":
            state = "preempted"  # requeued by SLURM, it goes on by itself
    step, steps = status.get("step") or 0, planned.steps if planned else status.get("steps")
    eta = None
    if state in ("running", "lost", "failed", "preempted"):
        step = max([step, *(record["step"] for record in run.last_metrics[:1])])
        if run.last_metrics and state == "running":
            eta = _eta(run, planned, steps)
            if step == steps:
                notes.append("scoring")
    if run.exception and state == "failed":
        notes.append(run.exception)
    if job and job.reason and job.state == "PENDING":
        notes.append(f"waits for {job.reason}")
    elif job and job.reason and state not in FINISHED:
        notes.append(job.reason)
    if planned and status:
        if status.get("code_version", version) != version:
            notes.append(f"code {status['code_version']}, planned {version}")
        config = run.config
        same = all(config.get(k) == v for k, v in planned.config.items() if k not in ("logger", "runs", "sweep"))
        if config and not same and (words := departure(planned.config, config)):  # which takes longer
            first, *more = words.split(", ")
            notes.append(f"config: {first}" + (f" and {len(more)} more" if more else ""))
    unreadable = run.complaints()
    return Standing(
        id=run.name,
        variant=planned.variant if planned else run.variant,
        swept=swept,
        seed=planned.seed if planned else None,
        state=state,
        step=step,
        steps=steps,
        eta=eta,
        attempt=status.get("attempt") or 0,
        job=f"{job.id} {job.state}" if job else "",
        note="; ".join([*unreadable, *notes]),
        unreadable=unreadable,
    )


def _eta(run: RunFolder, planned: Planned | None, steps: int | None) -> float | None:
    """Seconds from now to the last step, at the speed of the last record."""
    timed = next((record for record in run.last_metrics if is_speed(record.get("images_per_s"))), None)
    if timed is None or steps is None:
        return None
    try:
        size = planned.batch_size if planned else run.config["trainer"]["batch_size"]
        since = time.time() - (run.path / METRICS).stat().st_mtime
        return max(0.0, (steps - timed["step"]) * size / timed["images_per_s"] - since)
    except (OSError, KeyError, TypeError):
        return None
