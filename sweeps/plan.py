"""python -m sweeps plan SWEEP [words] [--replace]: what a sweep will run, resolved, checked and frozen."""

import os
import shlex
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flowzoo.paths import user_path
from flowzoo.runs.check import check_values, plain_values
from flowzoo.runs.config import check_distinct, check_jobs, config_loader, expand_jobs
from flowzoo.runs.store import RunError, code_version
from flowzoo.runs.text import key_of
from sweeps.benched import Estimate
from sweeps.definition import Sweep, load
from sweeps.estimate import Part, Speed, parts
from sweeps.manifest import PLAN, Manifest, Planned, is_plan, kept_plan
from sweeps.words import EXECUTION, execute, place, split


def configure(parser: ArgumentParser) -> None:
    add_sweep(parser)
    parser.add_argument("--replace", action="store_true", help="plan anew; run folders stay as they are")


def add_sweep(parser: ArgumentParser) -> None:
    """SWEEP and its words, as every command takes them that plans where nothing is planned yet."""
    parser.add_argument("sweep", metavar="SWEEP", help="a name, a YAML file, the folder of a planned sweep, or a plan")
    parser.add_argument("words", nargs="*", metavar="key=value", help="as for flowzoo.train; they win over the sweep's")


def main(args: Namespace) -> int:
    folder = folder_of(args.sweep, args.words)
    if args.replace and (folder == Path(args.sweep) or is_plan(args.sweep)):
        raise ValueError(f"{folder} --replace: allowed is the sweep's name or YAML file, which says what to plan")
    there = (folder / PLAN).exists()
    if args.replace or not (there or is_plan(args.sweep)):
        manifest = plan_of(load(args.sweep), args.words)
        manifest.write()
    else:
        manifest = planned(args.sweep, args.words)
    show(manifest)
    if there and not (folder == Path(args.sweep) or is_plan(args.sweep) or args.words or args.replace):
        now = plan_of(load(args.sweep), manifest.command)
        if differences := manifest.differences(now):
            print(f"note: the sweep says otherwise by now, --replace plans it anew: {_some(differences)}")
    return 0


def show(manifest: Manifest) -> None:
    """Prints what a plan will take, what of it is done, and what should be known before it starts."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    table = Table("data", "backbone", "runs", "finished", "steps", "left", "hours left", title=str(manifest.folder))
    kinds = parts(manifest)
    for part in kinds:
        counts = (f"{n:,}" for n in (part.runs, part.finished, part.steps, part.steps_left))
        table.add_row(part.dataset, part.backbone, *counts, _hours(part))
    console.print(table)
    words = f", with {shlex.join(manifest.command)}" if manifest.command else ""
    console.print(f"{len(manifest.runs)} runs planned at {manifest.created}, code {manifest.code_version}{words}")
    for speed in dict.fromkeys(str(part.speed) for part in kinds if isinstance(part.speed, Speed)):
        console.print(f"GPU-hours, or hours of the device that was measured, one run at a time: {speed}")
    for speed in dict.fromkeys(str(part.speed) for part in kinds if isinstance(part.speed, Estimate)):
        console.print(f"~ {speed}")
    guessed = [part.cpu_hours for part in kinds if part.cpu_hours]
    if guessed and not any(isinstance(part.speed, Estimate) and part.speed.is_here for part in kinds):
        console.print(f"on this machine's {os.cpu_count()} cores about {_shown(sum(guessed))} hours")
    if any(part.hours is None and part.steps_left for part in kinds):
        console.print("no speed is known for some: no runs alike in this folder or in planned ones beside it")
    seeds = Counter((run.variant, run.dataset, run.backbone, run.config["optimizer"]["lr"]) for run in manifest.runs)
    if min(seeds.values()) == 1:
        console.print("one seed: a seed is not a result, it moves FID by several percent; seeds=3 plans three")
    if manifest.code_version != code_version():
        console.print(f"note: the code is {code_version()} by now; what is trained from here on says so in its status")


def _hours(part: Part) -> str:
    if part.hours is None:
        return "-"
    return f"{'~' if isinstance(part.speed, Estimate) else ''}{_shown(part.hours)}"


def _shown(hours: float) -> str:
    return f"{hours:,.{1 if hours >= 1 else 2}f}"


def _some(differences: Sequence[str]) -> str:
    more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
    return differences[0] + more


def folder_of(sweep: str, words: Sequence[str] = ()) -> Path:
    """Where a sweep's runs and its plan lie. Raises ValueError for an unknown sweep."""
    if is_plan(sweep):
        return kept_plan(sweep, words).folder
    return Path(sweep) if (Path(sweep) / PLAN).is_file() else _folder(load(sweep), words)


def _folder(sweep: Sweep, words: Sequence[str]) -> Path:
    return place(sweep.name, (*sweep.overrides, *words))


def plan_of(sweep: Sweep, words: Sequence[str] = ()) -> Manifest:
    """The plan of a sweep, composed and checked; nothing is written. Raises one of `UserErrors`."""
    with config_loader() as loader:
        jobs = expand_jobs(loader, "train", sweep.command(words), multirun=True)
    check_jobs([jobs[0].cfg])  # with its logger, too
    configs = [plain_values(partial(getattr, job, "resolved")) for job in jobs]
    for config in configs:
        check_values(config)
    folders = list(dict.fromkeys(user_path(config["runs"]) / config["sweep"] for config in configs))
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
    if is_plan(sweep):
        return _adopted(sweep, words)
    if not (folder / PLAN).exists():
        manifest = plan_of(load(sweep), planning)
        check_jobs(execute([manifest.runs[0].cfg], [*manifest.execution, *execution]))
        manifest.write()
        return manifest
    manifest = Manifest.read(folder)
    said, _ = split(manifest.command)
    if not planning or planning == said:
        return manifest
    if folder == Path(sweep):
        raise RunError(f"{' '.join(planning)}: {folder} is planned; allowed are {', '.join(EXECUTION)}")
    if differences := manifest.differences(plan_of(load(sweep), planning)):
        raise RunError(
            f"{' '.join(planning)} is not what is planned in {folder}: {_some(differences)}; allowed are no such "
            "words, sweep=NAME for another folder, or python -m sweeps plan SWEEP ... --replace"
        )
    return manifest


def _adopted(sweep: str, words: Sequence[str]) -> Manifest:
    """The plan in a file, written to its folder where there is none. Raises RunError where there is another."""
    if more := [word for word in split(words)[0] if key_of(word) not in ("runs", "sweep")]:
        raise RunError(
            f"{' '.join(more)}: {sweep} is planned; allowed are runs=DIR, sweep=NAME, {', '.join(EXECUTION)}"
        )
    manifest = kept_plan(sweep, words)
    if not (manifest.folder / PLAN).exists():
        manifest.write()
    elif differences := Manifest.read(manifest.folder).differences(manifest):
        raise RunError(
            f"{sweep} is not what is planned in {manifest.folder}: {_some(differences)}; allowed is sweep=NAME for "
            "another folder"
        )
    return manifest
