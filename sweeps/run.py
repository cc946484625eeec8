"""python -m sweeps run SWEEP [words]: every planned run that is not finished, on this machine."""

from argparse import ArgumentParser, Namespace

from sweeps.plan import add_sweep, planned
from sweeps.words import split
from sweeps.work import work


def configure(parser: ArgumentParser) -> None:
    add_sweep(parser)


def main(args: Namespace) -> int:
    manifest = planned(args.sweep, args.words)
    return work(manifest.folder, [run.id for run in manifest.runs], split(args.words)[1])
