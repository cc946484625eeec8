"""python -m sweeps submit SWEEP [words] [cluster.KEY=VALUE ...]: planned runs that are not finished, as SLURM jobs.

In place of a sweep train_clip or train_autoencoder with its words: the training of that network, as one job.
"""

from __future__ import annotations

import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.console import Console

from flowzoo.runs.grouping import cut, grouped, is_stacked, split
from flowzoo.runs.identity import run_folder
from flowzoo.runs.signals import handing_on
from flowzoo.runs.store import Run, RunError
from sweeps import slurm, snapshot, words
from sweeps.choice import Done, add_choice, chosen
from sweeps.cluster import Cluster, split_cluster
from sweeps.manifest import Manifest
from sweeps.plan import add_sweep, planned
from sweeps.sbatch import again, alone, check, executor_of, prepared, send
from sweeps.submit_command import COMMANDS, submit_command
from sweeps.work import jobs, work

if TYPE_CHECKING:
    pass


def configure(parser: ArgumentParser) -> None:
    add_sweep(parser)
    add_choice(parser)


def main(args: Namespace) -> int:
    if args.sweep in COMMANDS:
        if args.only or args.done:
            raise ValueError(f"--only and --done with {args.sweep}: allowed are key=value words; it is one job")
        return submit_command(args.sweep, args.words)
    check(args.words)  # refused before a plan is written
    done = Done(args.done)
    manifest = planned(args.sweep, split_cluster(args.words)[1])
    return submit(manifest, chosen(manifest, args, done), args.words)


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
        return again(self)


def submit(manifest: Manifest, ids: Sequence[str], given: Sequence[str] = ()) -> int:
    """Submits the planned runs of `ids` that are neither finished nor in the queue; prints the jobs. Returns 0.

    `given`: words of the group `cluster` and of execution; others are passed over. Raises one of `UserErrors`; what was
    submitted before an error of SLURM's is recorded.
    """
    console = Console(soft_wrap=True, highlight=False)
    cluster, execution = check(given), words.split(split_cluster(given)[1])[1]
    return alone(manifest.folder, lambda: _submit(manifest, ids, cluster, execution, console))


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

    submission, source = prepared(manifest.folder, [run.config for run in manifest.runs])
    recorded: dict[str, list[str]] = {}
    for shape, packs in _packs(cfgs, cluster.runs_per_job):
        executor = executor_of(submission / "logs", manifest.folder.name, cluster, shape, snapshot.exports(source))
        for start in range(0, len(packs), largest):
            array = packs[start : start + largest]
            tasks = [Work(manifest.folder.resolve(), tuple(pack), tuple(execution)) for pack in array]
            try:
                job_ids = send(executor, tasks, array, submission, recorded)
            except RunError:
                if not recorded:
                    shutil.rmtree(submission)
                raise
            first, last = job_ids[0], job_ids[-1].split("_")[-1]
            name = first if len(array) == 1 else f"{first}..{last}"
            console.print(f"job {name}: {sum(map(len, array))} runs in {len(array)} jobs")
    console.print(f"logs: {submission / 'logs'}\nhow it stands: python -m sweeps status {manifest.folder}")
    return 0


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
