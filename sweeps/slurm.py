"""What SLURM knows of a sweep's runs: the records of what was submitted, squeue for the living, sacct for the ended."""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flowzoo.runs.files import RunError, read_bytes, replace
from flowzoo.runs.slurm import NoAnswer, ask

COMMANDS = ("squeue", "scontrol", "sbatch", "srun", "scancel")
# States of a job that will run or does. REQUEUED is between the two, and so may a job be that is COMPLETING.
ACTIVE = (
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "REQUEUED"),
    *("REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "STAGE_OUT", "COMPLETING"),
)
SUBMITTED = ".submit"  # in a sweep's folder: a folder for each submission
RECORD = "jobs.json"  # in each of those: which run is in which job


@dataclass(frozen=True)
class Job:
    """`state` is SLURM's word, UNKNOWN where it says nothing of the job or does not answer; `reason` says why.

    The reason of a job that waits is squeue's.
    """

    id: str
    state: str
    reason: str = ""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def check() -> None:
    """Raises RunError where jobs cannot be submitted: SLURM is not here, or it does not answer."""
    if missing := [name for name in COMMANDS if shutil.which(name) is None]:
        raise RunError(f"there is no SLURM here (no {', '.join(missing)}): allowed is python -m sweeps run")
    _queue({os.getuid()})


def jobs_of(folder: str | Path) -> dict[str, Job]:
    """The job of each run that was submitted from a sweep's folder, by run id.

    Of several the latest that is in the queue, else the latest. Raises NoAnswer where there are jobs and SLURM does not
    say how they stand, and RunError for a record that cannot be read.
    """
    return {
        run: next((job for job in reversed(jobs) if job.active), jobs[-1]) for run, jobs in all_jobs_of(folder).items()
    }


def jobs_as_far_as_known(folder: str | Path) -> dict[str, Job]:
    """As `jobs_of`, to be shown: where SLURM does not answer, the latest job of each run as UNKNOWN with the reason."""
    try:
        return jobs_of(folder)
    except NoAnswer as error:
        return {run: Job(ids[-1], "UNKNOWN", str(error)) for run, ids in _submitted(Path(folder)).items()}


def all_jobs_of(folder: str | Path) -> dict[str, list[Job]]:
    """Every job of each run, the oldest first. Two questions for all of them. Raises as `jobs_of`."""
    submitted = _submitted(Path(folder))
    if not submitted:
        return {}
    # whoever submitted: a folder may be a group's
    users = {path.stat().st_uid for path in _record_files(Path(folder))} | {os.getuid()}
    jobs = _known({job for of_run in submitted.values() for job in of_run}, users)
    return {run: [jobs[job] for job in of_run] for run, of_run in submitted.items()}


def _submitted(folder: Path) -> dict[str, list[str]]:
    """The ids of the jobs of each run, the oldest first."""
    ids: dict[str, list[str]] = {}
    for record in records(folder):
        for job, runs in record.items():
            for run in runs:
                ids.setdefault(run, []).append(job)
    return ids


def _record_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{SUBMITTED}/*/{RECORD}"))


def records(folder: Path) -> list[Mapping[str, Sequence[str]]]:
    """Of each submission, the oldest first, the ids of the runs that each job has. Raises RunError."""
    found = []
    for path in _record_files(folder):
        try:
            found.append(json.loads(read_bytes(path)))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}; without it jobs may be submitted twice: remove it") from None
    return found


def write_record(submission: Path, jobs: Mapping[str, Sequence[str]]) -> None:
    """Replaces the record of one submission. Raises RunError."""
    replace(submission / RECORD, json.dumps(jobs, indent=1) + "\n")


def max_array_size() -> int:
    """How many jobs an array of this cluster may hold; 1 where there are no arrays. Raises NoAnswer."""
    for line in ask("scontrol", "show", "config").splitlines():
        if line.startswith("MaxArraySize"):
            with suppress(ValueError):
                return max(1, int(line.split("=")[1]))
    return 1


def cancel(ids: Collection[str]) -> None:
    """Raises NoAnswer."""
    try:
        ask("scancel", *sorted(ids))
    except NoAnswer:  # it may only say that one of them has just ended
        active = {id for id, job in _queue({os.getuid()}).items() if job.active and job.state != "COMPLETING"}
        if active & set(ids):
            raise


def _known(ids: set[str], users: Collection[int]) -> dict[str, Job]:
    jobs = _queue(users)
    # A job that ends says only to sacct whether it will come back.
    asked = sorted({id.split("_")[0] for id in ids if id not in jobs or jobs[id].state == "COMPLETING"})
    if asked:
        told = ("sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State")
        answer = ""
        with suppress(NoAnswer):  # a cluster need not keep accounts: squeue alone says who is in the queue
            answer = ask(*told, f"--jobs={','.join(asked)}")
        for listed, _, state in (line.partition("|") for line in answer.splitlines()):
            for id in _tasks(listed):
                job = Job(id, state.split()[0] if state else "UNKNOWN")  # CANCELLED by 1000
                if id != listed and job.active:  # squeue knows better: a task that was cancelled alone stays listed
                    continue
                if id not in jobs or jobs[id].state == "COMPLETING":
                    jobs[id] = job
    return {id: jobs.get(id, Job(id, "UNKNOWN")) for id in ids}


def _queue(users: Collection[int]) -> dict[str, Job]:
    """The jobs of these users that wait, run or end, by id. Raises NoAnswer.

    By the users' numbers: squeue knows --me since 20.02 alone.
    """
    by_number = f"--user={','.join(map(str, sorted(users)))}"
    jobs = {}
    for line in ask("squeue", "--noheader", "--array", by_number, "--format=%i|%T|%r").splitlines():
        id, state, reason = [*line.split("|", 2), "", ""][:3]
        if not state:
            raise NoAnswer(f"squeue does not answer: it printed {line!r}, which is no job")
        jobs[id] = Job(id, state, "" if reason == "None" else reason)
    return jobs


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
