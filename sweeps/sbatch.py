"""How jobs are sent to SLURM: one submission at a time, a copy of the source, sbatch by submitit, a record of jobs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowzoo.runs.files import saying
from flowzoo.runs.lock import RunLock
from flowzoo.runs.signals import shielded, stoppable
from flowzoo.runs.store import RunError
from sweeps import slurm, snapshot
from sweeps.cluster import Cluster, cluster_of, split_cluster

if TYPE_CHECKING:
    from submitit import AutoExecutor

PATIENCE = 300.0  # seconds for sbatch, which itself tries again for minutes where SLURM is busy


def check(given: Sequence[str]) -> Cluster:
    """What the words of the group `cluster` ask for. Raises one of `UserErrors`, also where SLURM does not answer."""
    cluster = cluster_of(split_cluster(given)[0])
    slurm.check()
    return cluster


@shielded
def alone(folder: Path, task: Callable[[], int]) -> int:
    """Call `task` while no other process submits the folder's work: neither would see the other's jobs in the queue.

    A signal interrupts the task, but never leaves the lock behind. Raises RunError where another process submits.
    """
    place = folder / slurm.SUBMITTED
    with saying(f"cannot lock {place}"):
        place.mkdir(exist_ok=True)
        lock = RunLock(place)
        other = lock.acquire()
    if other:
        raise RunError(f"{folder} is being submitted by {other}: allowed is one at a time")
    try:
        return stoppable(task)()
    finally:
        with saying(f"cannot unlock {place}"):
            lock.release()


def prepared(folder: Path, configs: Sequence[Mapping[str, Any]]) -> tuple[Path, Path]:
    """A new submission's folder, and the copy of the source in it. Raises RunError."""
    submission = folder / slurm.SUBMITTED / datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    source = submission.resolve() / "source"
    with saying(f"cannot copy the source to {source}"):
        snapshot.take(configs, source)
    return submission, source


@shielded
def send(
    executor: AutoExecutor,
    tasks: Sequence[Callable[[], None]],
    array: Sequence[list[str]],
    submission: Path,
    recorded: dict[str, list[str]],
) -> list[str]:
    """Submit an array of jobs and record it; a signal waits until both are done. Returns the ids of the jobs.

    Adds to `recorded`, the runs of each job of this submission. Raises RunError.
    """
    job_ids = _sbatch(executor, tasks)
    recorded |= dict(zip(job_ids, array, strict=True))
    slurm.write_record(submission, recorded)
    return job_ids


def again(work: Callable[[], None]) -> object:
    """What submitit asks of a job's `checkpoint`: the same work, for when the job comes back."""
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(work)


def executor_of(
    logs: Path, name: str, cluster: Cluster, shape: tuple[int, int], exports: Sequence[str]
) -> AutoExecutor:
    from submitit import AutoExecutor

    executor = AutoExecutor(
        logs, cluster="slurm", slurm_max_num_timeout=cluster.max_requeues, slurm_python=cluster.python
    )
    nodes, tasks = shape
    # the copy of the source comes last, whatever the user's own lines set
    setup = [*cluster.setup, *exports]
    executor.update_parameters(name=name, nodes=nodes, tasks_per_node=tasks, slurm_setup=setup, **cluster.parameters())
    return executor


def _sbatch(executor: AutoExecutor, tasks: Sequence[Callable[[], None]]) -> list[str]:
    """The ids of the jobs, in order. Raises RunError with what sbatch said, or where it did not end in time."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError
    from submitit.helpers import clean_env, environment_variables

    config = {name: value for name, value in os.environ.items() if name == "SLURM_CONF"}
    # inside a job, what is that job's own would become the new one's
    inside = clean_env() if "SLURM_JOB_ID" in os.environ else nullcontext()
    doubt = "jobs may be in the queue that nobody recorded: look with squeue, and scancel them before you submit again"
    try:
        # what sbatch says comes with the error as well
        with inside, environment_variables(**config), redirect_stderr(StringIO()), _no_longer_than(PATIENCE):
            return [job.job_id for job in executor.submit_array(tasks)]
    except FailedJobError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise RunError(f"sbatch does not answer: it had {PATIENCE:g} s; {doubt}") from None
        raise RunError(f"sbatch: {' '.join(str(error).split()) or 'it failed without a word'}") from None
    except FailedSubmissionError as error:
        raise RunError(f"{' '.join(str(error).splitlines()[0].split())}; {doubt}") from None


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block, which has to run in the main thread. Submitit waits for sbatch for ever."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
