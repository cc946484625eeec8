"""python -m sweeps submit SWEEP [words] [cluster.KEY=VALUE ...]: planned runs that are not finished, as SLURM jobs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.console import Console

from flowzoo.runs.files import saying
from flowzoo.runs.grouping import cut, grouped, is_stacked, split
from flowzoo.runs.identity import run_folder
from flowzoo.runs.lock import RunLock
from flowzoo.runs.signals import handing_on, shielded, stoppable
from flowzoo.runs.store import Run, RunError
from sweeps import slurm, snapshot, words
from sweeps.choice import Done, add_choice, chosen
from sweeps.cluster import Cluster, cluster_of, split_cluster
from sweeps.manifest import Manifest
from sweeps.plan import add_sweep, planned
from sweeps.work import jobs, work

if TYPE_CHECKING:
    from submitit import AutoExecutor

PATIENCE = 300.0  # seconds for sbatch, which itself tries again for minutes where SLURM is busy


def configure(parser: ArgumentParser) -> None:
    add_sweep(parser)
    add_choice(parser)


def main(args: Namespace) -> int:
    check(args.words)  # refused before a plan is written
    done = Done(args.done)
    manifest = planned(args.sweep, split_cluster(args.words)[1])
    return submit(manifest, chosen(manifest, args, done), args.words)


def check(given: Sequence[str]) -> Cluster:
    """What the words of the group `cluster` ask for. Raises one of `UserErrors`, also where SLURM does not answer."""
    cluster = cluster_of(split_cluster(given)[0])
    slurm.check()
    return cluster


@dataclass(frozen=True)
class Work:
    """What a job does. Submitit pickles it, and calls `checkpoint` for what a requeued job does: the same."""

    folder: Path
    ids: tuple[str, ...]
    execution: tuple[str, ...]

    def __call__(self) -> None:
        with handing_on():
            code = work(self.folder, self.ids, self.execution)
        if code:
            sys.exit(code)  # a job with a failed run is a failed job

    def checkpoint(self) -> object:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(manifest: Manifest, ids: Sequence[str], given: Sequence[str] = ()) -> int:
    """Submits the planned runs of `ids` that are neither finished nor in the queue; prints the jobs. Returns 0.

    `given`: words of the group `cluster` and of execution; others are passed over. Raises one of `UserErrors`; what was
    submitted before an error of SLURM's is recorded.
    """
    console = Console(soft_wrap=True, highlight=False)
    cluster, execution = check(given), words.split(split_cluster(given)[1])[1]
    return _alone(manifest.folder, lambda: _submit(manifest, ids, cluster, execution, console))


@shielded
def _alone(folder: Path, task: Callable[[], int]) -> int:
    """Call `task` while no other process submits the sweep: neither would see the other's jobs in the queue.

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


def _submit(
    manifest: Manifest, ids: Sequence[str], cluster: Cluster, execution: Sequence[str], console: Console
) -> int:
    largest = slurm.max_array_size()
    queued = {id for id, job in slurm.jobs_of(manifest.folder).items() if job.active}
    finished = {id for id in ids if Run(manifest.folder / id).is_finished}
    cfgs = jobs(manifest, [id for id in ids if id not in queued | finished], execution)
    for note, count in (("finished already", len(finished)), ("in the queue already", len(queued & set(ids)))):
        if count:
            console.print(f"{count} of {len(ids)} runs are {note}")
    if not cfgs:
        console.print("nothing to submit")
        return 0

    submission = manifest.folder / slurm.SUBMITTED / datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    source = submission.resolve() / "source"
    with saying(f"cannot copy the source to {source}"):
        snapshot.take([run.config for run in manifest.runs], source)
    recorded: dict[str, list[str]] = {}
    for shape, packs in _packs(cfgs, cluster.runs_per_job):
        executor = _executor(submission / "logs", manifest.folder.name, cluster, shape, snapshot.exports(source))
        for start in range(0, len(packs), largest):
            array = packs[start : start + largest]
            tasks = [Work(manifest.folder.resolve(), tuple(pack), tuple(execution)) for pack in array]
            try:
                job_ids = _send(executor, tasks, array, submission, recorded)
            except RunError:
                if not recorded:
                    shutil.rmtree(submission)
                raise
            first, last = job_ids[0], job_ids[-1].split("_")[-1]
            name = first if len(array) == 1 else f"{first}..{last}"
            console.print(f"job {name}: {sum(map(len, array))} runs in {len(array)} jobs")
    console.print(f"logs: {submission / 'logs'}\nhow it stands: python -m sweeps status {manifest.folder}")
    return 0


@shielded
def _send(
    executor: AutoExecutor,
    tasks: Sequence[Work],
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


def _packs(cfgs: Sequence[DictConfig], runs_per_job: int) -> list[tuple[tuple[int, int], list[list[str]]]]:
    """The ids of the runs of each job, by what a job needs: (nodes, processes a node).

    A job has a stack, or `runs_per_job` runs that it trains one after another.
    """
    shapes: dict[tuple[int, int], list[list[DictConfig]]] = {}
    if is_stacked(cfgs[0]):
        size = cfgs[0].stack.size  # how many fit into memory is known where they run
        for group in grouped(cfgs):
            pieces = cut(group, split(len(group), len(group) if size == "auto" else size))
            shapes.setdefault((1, 1), []).extend(pieces)
    else:
        by_shape: dict[tuple[int, int], list[DictConfig]] = {}
        for cfg in cfgs:
            by_shape.setdefault(_shape(cfg), []).append(cfg)
        for shape, alike in by_shape.items():
            if shape != (1, 1) and runs_per_job > 1:
                raise ValueError(f"cluster.runs_per_job={runs_per_job}: allowed is 1 for a run of several processes")
            shapes[shape] = cut(alike, split(len(alike), runs_per_job))
    return [(shape, [[run_folder(cfg).name for cfg in pack] for pack in packs]) for shape, packs in shapes.items()]


def _shape(cfg: DictConfig) -> tuple[int, int]:
    """Nodes and processes a node: under SLURM Lightning wants a task a device."""
    devices = cfg.trainer.devices
    return cfg.trainer.num_nodes, devices if isinstance(devices, int) and devices > 0 else 1


def _executor(logs: Path, name: str, cluster: Cluster, shape: tuple[int, int], exports: Sequence[str]) -> AutoExecutor:
    from submitit import AutoExecutor

    executor = AutoExecutor(
        logs, cluster="slurm", slurm_max_num_timeout=cluster.max_requeues, slurm_python=cluster.python
    )
    nodes, tasks = shape
    # the copy of the source comes last, whatever the user's own lines set
    setup = [*cluster.setup, *exports]
    executor.update_parameters(name=name, nodes=nodes, tasks_per_node=tasks, slurm_setup=setup, **cluster.parameters())
    return executor


def _sbatch(executor: AutoExecutor, tasks: Sequence[Work]) -> list[str]:
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
