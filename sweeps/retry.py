"""python -m sweeps retry SWEEP --failed|--unfinished|--all [--from checkpoint|scratch]: planned runs once more."""

import os
import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from flowzoo.runs.files import RunError, saying, tell
from flowzoo.runs.layout import CONFIG, RESULTS, STATUS
from flowzoo.runs.lock import LOCK
from flowzoo.runs.signals import shielded
from flowzoo.runs.store import Run
from sweeps.manifest import Manifest
from sweeps.plan import add_sweep, folder_of
from sweeps.run import add_jobs, run_here
from sweeps.work import jobs

# What a run folder keeps when its run starts from scratch.
KEPT = (CONFIG, STATUS)


def configure(parser: ArgumentParser) -> None:
    add_sweep(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--failed", action="store_const", dest="which", const=_is_failed, help="failed runs")
    which.add_argument(
        "--unfinished", action="store_const", dest="which", const=_is_unfinished, help="all but done, diverged, stopped"
    )
    which.add_argument("--all", action="store_const", dest="which", const=_is_any, help="finished ones, too")
    parser.add_argument(
        "--from",
        choices=("checkpoint", "scratch"),
        default="checkpoint",
        dest="start",
        help="go on from the last checkpoint, or remove what the chosen runs have trained and scored",
    )
    add_jobs(parser)
    parser.add_argument("--submit", action="store_true", help="as SLURM jobs, as submit does")


def _is_failed(state: str) -> bool:
    return state in ("failed", "damaged")


def _is_unfinished(state: str) -> bool:
    return state not in ("done", "diverged", "stopped")


def _is_any(state: str) -> bool:
    return True


def main(args: Namespace) -> int:
    folder = folder_of(args.sweep, args.words)
    manifest = Manifest.read(folder)
    words = [word for word in args.words if word.split("=", 1)[0] not in ("runs", "sweep")]
    if args.submit:
        from sweeps.cluster import split_cluster
        from sweeps.sbatch import check
        from sweeps.submit import submit

        check(words)
        execution = split_cluster(words)[1]
    else:
        execution = words
    tell("sweeps retry", unreadable(manifest))
    wanted = chosen(manifest, args.which)
    jobs(manifest, wanted, execution)  # what is refused is refused before anything is removed
    ids = []
    for id in wanted:
        try:
            requeue(manifest.run(manifest.by_id[id]), args.start == "scratch")
            ids.append(id)
        except RunError as error:
            print(f"sweeps retry: {error}; it is left alone", file=sys.stderr)
    left = 1 if unreadable(manifest) else 0  # a status that could not be read has been replaced by now
    print(f"{len(ids)} of {len(manifest.runs)} runs of {folder} once more", flush=True)
    if not ids:
        return left
    code = submit(manifest, ids, words) if args.submit else run_here(manifest, ids, words, args.jobs)
    return code or left


def chosen(manifest: Manifest, which: Callable[[str], bool]) -> list[str]:
    """The ids of the planned runs whose state `which` accepts.

    A damaged run counts as a failed one: a new status takes the place of one that cannot be read.
    """
    return [planned.id for planned in manifest.runs if which(manifest.read_run(planned).state)]


def unreadable(manifest: Manifest) -> list[str]:
    """A line for each file of the planned runs that cannot be read."""
    runs = [manifest.read_run(planned) for planned in manifest.runs]
    return [line for run in runs for line in run.complaints()]


@shielded
def requeue(run: Run, scratch: bool) -> None:
    """Sets a run back to queued, from scratch without what it has trained and scored.

    Raises RunBusy where somebody holds it, and RunError where it cannot be written.
    """
    if not os.path.lexists(run.path):
        return
    with run.lock():
        # first of all: whenever this is cut short, the run does not count as finished
        run.set_status("queued", finished=None, exception=None, **({"step": 0} if scratch else {}))
        if scratch:
            _empty(run)


def _empty(run: Run) -> None:
    # the rows before the weights that they are of
    for path in sorted(run.path.iterdir(), key=lambda path: path.name != RESULTS):
        if path.name in KEPT or path.name.startswith(LOCK):
            continue
        with saying(f"cannot remove {path}"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
