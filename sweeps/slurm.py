"""What SLURM knows of a sweep's runs: the records of what was submitted, squeue for the living, sacct for the ended."""

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flowzoo.runs.files import RunError, replace

# States of a job that will run or does; REQUEUED is between the two.
ACTIVE = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "REQUEUED")
SUBMITTED = ".submit"  # in a sweep's folder: a folder for each submission
RECORD = "jobs.json"  # in each of those: which run is in which job


@dataclass(frozen=True)
class Job:
    """`state` is SLURM's word, UNKNOWN where it says nothing; `reason` says why the job waits, as squeue does."""

    id: str
    state: str
    reason: str = ""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def is_here() -> bool:
    return shutil.which("squeue") is not None


def jobs_of(folder: str | Path) -> dict[str, Job]:
    """The job of each run that was submitted from a sweep's folder, by run id; {} where there is no SLURM.

    Of several the latest that is in the queue, else the latest. Raises RunError for a record that cannot be read.
    """
    return {
        run: next((job for job in reversed(jobs) if job.active), jobs[-1]) for run, jobs in all_jobs_of(folder).items()
    }


def all_jobs_of(folder: str | Path) -> dict[str, list[Job]]:
    """Every job of each run, the oldest first, as `jobs_of`. Two calls for all of them."""
    ids: dict[str, list[str]] = {}
    for record in records(Path(folder)):
        for job, runs in record.items():
            for run in runs:
                ids.setdefault(run, []).append(job)
    if not ids or not is_here():
        return {}
    jobs = _known({job for of_run in ids.values() for job in of_run})
    return {run: [jobs[job] for job in of_run] for run, of_run in ids.items()}


def records(folder: Path) -> list[Mapping[str, Sequence[str]]]:
    """Of each submission, the oldest first, the ids of the runs that each job has. Raises RunError."""
    found = []
    for path in sorted(folder.glob(f"{SUBMITTED}/*/{RECORD}")):
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}; without it jobs may be submitted twice: remove it") from None
    return found


def write_record(submission: Path, jobs: Mapping[str, Sequence[str]]) -> None:
    """Replaces the record of one submission. Raises RunError."""
    replace(submission / RECORD, json.dumps(jobs, indent=1) + "\n")


def max_array_size() -> int:
    """How many jobs an array of this cluster may hold; 1 where there are no arrays. Raises RunError."""
    for line in _said(["scontrol", "show", "config"]).splitlines():
        if line.startswith("MaxArraySize"):
            return max(1, int(line.split("=")[1]))
    return 1


def cancel(ids: Iterable[str]) -> None:
    """Raises RunError."""
    _said(["scancel", *ids])


def _known(ids: set[str]) -> dict[str, Job]:
    living = _lines(["squeue", "--noheader", "--array", "--me", "--format=%i|%T|%r"])
    jobs = {id: Job(id, state, "" if reason == "None" else reason) for id, state, reason in living}
    # A job that ends says only to sacct whether it will come back.
    asked = sorted({id.split("_")[0] for id in ids if id not in jobs or jobs[id].state == "COMPLETING"})
    if asked:
        told = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State"]
        for listed, state in _lines([*told, f"--jobs={','.join(asked)}"]):
            for id in _tasks(listed):
                job = Job(id, state.split()[0])  # CANCELLED by 1000
                if id != listed and job.active:  # squeue knows better: a task that was cancelled alone stays listed
                    continue
                if id not in jobs or jobs[id].state == "COMPLETING":
                    jobs[id] = job
    return {id: jobs.get(id, Job(id, "UNKNOWN")) for id in ids}


def _tasks(id: str) -> list[str]:
    """sacct tells of those tasks of an array that never began in one line: 7_[0,3-9%2]."""
    array, bracket, listed = id.partition("_[")
    if not bracket:
        return [id]
    found = []
    with suppress(ValueError):
        for span in listed.rstrip("]").split("%")[0].split(","):
            first, _, last = span.partition("-")
            found += [f"{array}_{number}" for number in range(int(first), int(last or first) + 1)]
    return found


def _lines(command: Sequence[str]) -> list[list[str]]:
    """The fields of each line; nothing where SLURM does not answer."""
    try:
        return [line.split("|") for line in _said(command).splitlines()]
    except RunError:
        return []


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except subprocess.CalledProcessError as error:
        raise RunError(" ".join(error.stderr.split())) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]}: {error}") from None
    return done.stdout
