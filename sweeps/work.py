"""python -m sweeps work FOLDER [--ids ID ...] [words]: trains runs of a plan, one after another, in this process."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from flowzoo.runs.check import check_stored, check_values
from flowzoo.runs.grouping import is_stacked
from sweeps.engine import run_all, run_stacked
from sweeps.manifest import Manifest
from sweeps.words import execute


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of a sweep that is planned, runs/NAME")
    parser.add_argument("--ids", nargs="+", metavar="ID", help="names of run folders; all by default")
    parser.add_argument("words", nargs="*", metavar="key=value", help="of execution: engine=stacked, logger=wandb, ...")


def main(args: Namespace) -> int:
    return work(args.folder, args.ids or [planned.id for planned in Manifest.read(args.folder).runs], args.words)


def jobs(manifest: Manifest, ids: Sequence[str], execution: Sequence[str] = ()) -> list[DictConfig]:
    """The checked configs of the planned runs of these ids, in the order of the plan, as they will be executed.

    Raises one of `UserErrors`.
    """
    planned = manifest.chosen(ids)
    for run in planned:
        check_values(run.config)
    cfgs = execute([run.cfg for run in planned], [*manifest.execution, *execution])
    for cfg in cfgs[:1]:  # the words of execution are the same for all
        check_stored(cfg)
    return cfgs


def work(folder: Path, ids: Sequence[str], execution: Sequence[str] = ()) -> int:
    """Trains and scores each planned run of `ids` that is not finished and that nobody else trains.

    `execution`: words that can change neither a weight nor a score (sweeps/words.py). Returns the exit code: 0, 1 with
    failures, 130 when interrupted. Raises one of `UserErrors` before anything is written.
    """
    manifest = Manifest.read(folder)
    cfgs = jobs(manifest, ids, execution)
    if not cfgs:
        return 0
    if is_stacked(cfgs[0]):
        from flowzoo.train import run_together

        return run_stacked(cfgs, run_together, manifest.swept)
    from flowzoo.train import run

    return run_all(cfgs, run, manifest.swept)
