"""The training of a frozen network as one SLURM job: python -m sweeps submit train_autoencoder [key=value ...]."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from flowzoo.runs.check import plain_values
from flowzoo.runs.files import saying
from flowzoo.runs.signals import handing_on
from flowzoo.runs.single import composed
from flowzoo.runs.store import RunError
from sweeps import slurm, snapshot
from sweeps.cluster import Cluster, split_cluster
from sweeps.sbatch import again, alone, check, executor_of, prepared, send

COMMANDS = ("train_clip", "train_autoencoder")


def submit_command(command: str, given: Sequence[str]) -> int:
    """Submits the training of a frozen network, as `python -m flowzoo.<command>` does it; prints the job. Returns 0.

    Raises one of `UserErrors`, as the command itself would before it reads images.
    """
    cluster, own = check(given), split_cluster(given)[1]
    cfg = composed(command, own)
    config = plain_values(lambda: OmegaConf.to_container(cfg, resolve=True))
    folder = import_module(f"flowzoo.{command}").prepare(cfg).folder.resolve()
    with saying(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    return alone(folder, lambda: _submit_command(command, own, folder, cluster, config))


def _submit_command(
    command: str, words: Sequence[str], folder: Path, cluster: Cluster, config: Mapping[str, Any]
) -> int:
    if (job := slurm.jobs_of(folder).get(folder.name)) and job.active:
        print(f"job {job.id} trains {folder} already, or will")
        return 0
    submission, source = prepared(folder, [config])
    executor = executor_of(submission / "logs", folder.name, cluster, (1, 1), snapshot.exports(source))
    recorded: dict[str, list[str]] = {}
    try:
        (job_id,) = send(executor, [Training(command, tuple(words))], [[folder.name]], submission, recorded)
    except RunError:
        shutil.rmtree(submission)
        raise
    print(f"job {job_id}: {command} to {folder}\nlogs: {submission / 'logs'}; the same command goes on after an end")
    return 0


@dataclass(frozen=True)
class Training:
    """As `Work`, for a command that trains one network."""

    command: str
    words: tuple[str, ...]

    def __call__(self) -> None:
        sys.argv = [self.command, *self.words]
        with handing_on():
            try:
                import_module(f"flowzoo.{self.command}").main()
            except SystemExit as ended:
                code = ended.code
        if code:
            sys.exit(code)

    def checkpoint(self) -> object:
        return again(self)
