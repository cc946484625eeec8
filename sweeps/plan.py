"""python -m sweeps plan SWEEP [words] [--replace]: what a sweep will run, resolved, checked and frozen."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flowzoo.runs.check import check_values, plain_values
from flowzoo.runs.config import check_distinct, check_jobs, config_loader, expand_jobs
from flowzoo.runs.store import RunError, code_version
from sweeps.definition import Sweep, load
from sweeps.manifest import PLAN, Manifest, Planned
from sweeps.words import execute, key_of, split


def configure(parser: ArgumentParser) -> None:
    add_sweep(parser)
    parser.add_argument("--replace", action="store_true", help="plan anew; run folders stay as they are")


def add_sweep(parser: ArgumentParser) -> None:
    """SWEEP and its words, as every command takes them that plans where nothing is planned yet."""
    parser.add_argument("sweep", metavar="SWEEP", help="a name, a YAML file, or the folder of a planned sweep")
    parser.add_argument("words", nargs="*", metavar="key=value", help="as for flowzoo.train; they win over the sweep's")


def main(args: Namespace) -> int:
    folder = folder_of(args.sweep, args.words)
    if args.replace or not (folder / PLAN).exists():
        manifest = plan_of(load(args.sweep), args.words)
        manifest.write()
    else:
        manifest = planned(args.sweep, args.words)
    print(f"{len(manifest.runs)} runs planned in {manifest.folder}")
    return 0


def folder_of(sweep: str, words: Sequence[str] = ()) -> Path:
    """Where a sweep's runs and its plan lie. Raises ValueError for an unknown sweep."""
    return Path(sweep) if (Path(sweep) / PLAN).is_file() else _folder(load(sweep), words)


def _folder(sweep: Sweep, words: Sequence[str]) -> Path:
    given = {key_of(word): word.split("=", 1)[1] for word in (*sweep.overrides, *words) if "=" in word}
    return Path(given.get("runs", "runs")) / given.get("sweep", sweep.name)


def plan_of(sweep: Sweep, words: Sequence[str] = ()) -> Manifest:
    """The plan of a sweep, composed and checked; nothing is written. Raises one of `UserErrors`."""
    with config_loader() as loader:
        jobs = expand_jobs(loader, "train", sweep.command(words), multirun=True)
    check_jobs([jobs[0].cfg])  # with its logger, too
    configs = [plain_values(partial(getattr, job, "resolved")) for job in jobs]
    for config in configs:
        check_values(config)
    folders = list(dict.fromkeys(Path(config["runs"]) / str(config["sweep"]) for config in configs))
    if folders != [folder := _folder(sweep, words)]:
        raise ValueError(
            f"the runs go to {', '.join(map(str, folders))}: allowed is one folder, by runs=DIR sweep=NAME"
        )
    stacks = [config.pop("stack", None) for config in configs]
    if any(stack != stacks[0] for stack in stacks):
        raise ValueError("several engines or stack settings in one sweep: allowed is one")
    runs = tuple(map(Planned.of, configs))
    check_distinct(folder / planned.id for planned in runs)
    return Manifest(
        folder=folder,
        sweep=sweep.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=code_version(),
        command=list(words),
        execution=["engine=stacked", *(f"stack.{k}={v}" for k, v in stacks[0].items())] if stacks[0] else [],
        runs=runs,
    )


def planned(sweep: str, words: Sequence[str]) -> Manifest:
    """The plan of a sweep, made and written where there is none. Words of execution are no part of it.

    Raises RunError where there is one and the words would change it.
    """
    folder = folder_of(sweep, words)
    planning, execution = split(words)
    if not (folder / PLAN).exists():
        manifest = plan_of(load(sweep), planning)
        check_jobs(execute([manifest.runs[0].cfg], [*manifest.execution, *execution]))
        manifest.write()
        return manifest
    manifest = Manifest.read(folder)
    said, _ = split(manifest.command)
    if planning and planning != said and (differences := manifest.differences(plan_of(load(sweep), planning))):
        more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
        raise RunError(
            f"{' '.join(planning)} is not what is planned in {folder}: {differences[0]}{more}; allowed are no such "
            "words, sweep=NAME for another folder, or python -m sweeps plan SWEEP ... --replace"
        )
    return manifest
