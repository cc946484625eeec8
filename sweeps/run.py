"""python -m sweeps run SWEEP [words] [-j K] [--only K/N] [--done TABLE]: planned runs that are not finished, here."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from flowzoo.runs.arguments import positive
from flowzoo.runs.grouping import is_stacked
from sweeps.choice import Done, add_choice, chosen
from sweeps.manifest import Manifest
from sweeps.plan import add_sweep, planned
from sweeps.words import split
from sweeps.work import jobs, work


def configure(parser: ArgumentParser) -> None:
    add_sweep(parser)
    add_choice(parser)
    add_jobs(parser)


def add_jobs(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-j", "--jobs", type=positive, default=1, metavar="K", help="so many runs at a time, 1 by default"
    )


def main(args: Namespace) -> int:
    done = Done(args.done)  # refused before a plan is written
    manifest = planned(args.sweep, args.words)
    return run_here(manifest, chosen(manifest, args, done), split(args.words)[1], args.jobs)


def run_here(manifest: Manifest, ids: Sequence[str], execution: Sequence[str], at_once: int) -> int:
    """Trains the planned runs of `ids` on this machine. Returns the exit code as `work`; raises as `work`."""
    if at_once == 1 or not ids:
        return work(manifest.folder, ids, execution)
    if is_stacked(jobs(manifest, ids[:1], execution)[0]):
        return work(manifest.folder, ids, [*execution, f"stack.processes={at_once}"])
    from sweeps.workers import run_parallel

    return run_parallel(manifest, ids, execution, at_once)
