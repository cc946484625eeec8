"""python -m sweeps cancel SWEEP [--runs ID ...]: stops what is queued or running; what is saved and scored is kept."""

import os
import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from flowzoo.runs.lock import LOCK, Held
from sweeps import slurm
from sweeps.manifest import Manifest
from sweeps.plan import folder_of
from sweeps.status import add_folder


def configure(parser: ArgumentParser) -> None:
    add_folder(parser)
    parser.add_argument("--runs", nargs="+", metavar="ID", help="names of run folders or patterns; all by default")


def main(args: Namespace) -> int:
    manifest = Manifest.read(folder_of(args.sweep, args.words))
    chosen = matching([planned.id for planned in manifest.runs], args.runs or ["*"])
    # first of all, since it needs no answer of SLURM's
    pids = list(local_workers(manifest.folder, [planned.id for planned in manifest.runs]).items())
    for pid in {pid for id, pid in pids if id in chosen}:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGTERM)
    _say(f"told process {{}}, which trains {{}} of {manifest.folder}, to save and stop", pids, chosen)
    jobs = [(id, job.id) for id, of_run in slurm.all_jobs_of(manifest.folder).items() for job in of_run if job.active]
    if ids := {job for id, job in jobs if id in chosen}:
        slurm.cancel(ids)
    _say(f"cancelled job {{}} with {{}} of {manifest.folder}", jobs, chosen)
    if not chosen & {id for id, _ in jobs + pids}:
        print(f"nothing of {manifest.folder} is in the queue or runs on this machine")
    return 0


def matching(ids: Collection[str], patterns: Collection[str]) -> set[str]:
    """The ids that match one of the patterns. Raises ValueError for a pattern without any."""
    for pattern in patterns:
        if not any(fnmatchcase(id, pattern) for id in ids):
            raise ValueError(f"--runs {pattern}: no such run is planned; allowed are names of run folders and patterns")
    return {id for id in ids if any(fnmatchcase(id, pattern) for pattern in patterns)}


def local_workers(folder: Path, ids: Collection[str]) -> dict[str, int]:
    """The process of this machine, outside of SLURM, that trains each run."""
    found = {}
    for id in ids:
        held = Held.read(folder / id / LOCK)
        if held and held.owner and held.owner.job is None and held.owner.lives():
            found[id] = held.owner.pid
    return found


def _say(words: str, where: Sequence[tuple[str, str | int]], chosen: Collection[str]) -> None:
    """A line for each job or process that was stopped, with all of its runs: they stop together."""
    for one in dict.fromkeys(place for id, place in where if id in chosen):
        print(words.format(one, ", ".join(id for id, place in where if place == one)))
