"""python -m sweeps plan SWEEP [words] [--replace]: what a sweep will run, resolved, checked and frozen."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.grouping import alone, is_stacked
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
    given = {key_of(word): word.split("=", 1)[1] for word in words if "=" in word}
    if (Path(sweep) / PLAN).is_file():
        return Path(sweep)
    return Path(given.get("runs", "runs")) / given.get("sweep", load(sweep).name)


def plan_of(sweep: Sweep, words: Sequence[str] = ()) -> Manifest:
    """The plan of a sweep, composed and checked; nothing is written. Raises one of `UserErrors`."""
    command = sweep.command(words)
    with config_loader() as loader:
        cfgs = compose_jobs(loader, "train", command, multirun=True)
    check_jobs(cfgs)
    engine = ["engine=stacked", *(f"stack.{k}={v}" for k, v in cfgs[0].stack.items())] if is_stacked(cfgs[0]) else []
    if len(folders := {Path(cfg.runs) / cfg.sweep for cfg in cfgs}) > 1:
        raise ValueError(f"sweep={','.join(f.name for f in sorted(folders))}: allowed is one folder")
    (folder,) = folders
    return Manifest(
        folder=folder,
        sweep=sweep.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=code_version(),
        command=list(words),
        execution=engine,
        runs=tuple(map(Planned.of, map(alone, cfgs))),
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
