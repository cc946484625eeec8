"""python -m sweeps retry SWEEP --failed|--unfinished|--all [--from checkpoint|scratch]: planned runs once more."""

import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from flowzoo.runs.files import saying
from flowzoo.runs.lock import LOCK
from flowzoo.runs.store import Run, RunBusy, RunError
from sweeps.manifest import Manifest, Planned
from sweeps.plan import add_sweep, folder_of
from sweeps.run import add_jobs, run_here
from sweeps.work import jobs

# What a run folder keeps when its run starts from scratch.
KEPT = ("config.yaml", "status.json")


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


def _is_failed(state: str | None) -> bool:
    return state == "failed"


def _is_unfinished(state: str | None) -> bool:
    return state not in ("done", "diverged", "stopped")


def _is_any(state: str | None) -> bool:
    return True


def main(args: Namespace) -> int:
    folder = folder_of(args.sweep, args.words)
    manifest = Manifest.read(folder)
    words = [word for word in args.words if word.split("=", 1)[0] not in ("runs", "sweep")]
    if args.submit:
        from sweeps.cluster import split_cluster
        from sweeps.submit import check, submit

        check(words)
        execution = split_cluster(words)[1]
    else:
        execution = words
    ids = [planned.id for planned in chosen(manifest, args.which)]
    jobs(manifest, ids, execution)  # what is refused is refused before anything is removed
    ids = [id for id in ids if requeued(manifest.run(manifest.by_id[id]), args.start == "scratch")]
    print(f"{len(ids)} of {len(manifest.runs)} runs of {folder} once more", flush=True)
    if not ids:
        return 0
    return submit(manifest, ids, words) if args.submit else run_here(manifest, ids, words, args.jobs)


def chosen(manifest: Manifest, which: Callable[[str | None], bool]) -> list[Planned]:
    """The planned runs whose state `which` accepts; one with a status that cannot be read has failed."""

    def state(run: Run) -> str | None:
        try:
            return run.state
        except RunError:
            return "failed"

    return [planned for planned in manifest.runs if which(state(manifest.run(planned)))]


def requeued(run: Run, scratch: bool) -> bool:
    """Sets a run back to queued, from scratch without what it has trained and scored. False where somebody holds it."""
    if not run.path.is_dir():
        return True
    try:
        with run.lock():
            with saying(f"cannot remove {run.path / 'status.json'}"):
                if not _is_readable(run):
                    (run.path / "status.json").unlink()
            # first of all: whenever this is cut short, the run does not count as finished
            run.set_status("queued", finished=None, exception=None, **({"step": 0} if scratch else {}))
            if scratch:
                _empty(run)
    except RunBusy as error:
        print(f"sweeps: {error}; it is left alone", file=sys.stderr)
        return False
    return True


def _is_readable(run: Run) -> bool:
    try:
        return isinstance(run.status, dict)
    except RunError:
        return False


def _empty(run: Run) -> None:
    # the rows before the weights that they are of
    for path in sorted(run.path.iterdir(), key=lambda path: path.name != "results.csv"):
        if path.name in KEPT or path.name.startswith(LOCK):
            continue
        with saying(f"cannot remove {path}"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
