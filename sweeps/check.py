"""python -m sweeps check SWEEP [--deep] [--json] [--repair]: what is wrong in its folders, and what repairs it."""

import json
import re
import sys
import time
import zipfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import track

from flowzoo.runs.files import saying
from flowzoo.runs.identity import run_name, run_variant
from flowzoo.runs.lock import LOCK, Held
from flowzoo.runs.store import FINISHED, STATES, Run, RunError
from sweeps.manifest import PLAN, Manifest, Planned, departure
from sweeps.standing import config_of, folder_of, lost, run_folders
from sweeps.status import add_folder

# What a process that is killed while it writes leaves beside a file, and a lock beside itself.
LOCKS = re.compile(rf"{re.escape(LOCK)}([-.].+)?")
BESIDE = re.compile(rf".+\.part|(?!{re.escape(LOCK)})\..+\.[0-9a-f]+")
REPAIR = "python -m sweeps check SWEEP --repair"


@dataclass(frozen=True)
class Problem:
    """`remedy` is what to type or do. `repair` does it, where that loses nothing."""

    run: str
    what: str
    remedy: str
    repair: Callable[[], None] | None = None


def configure(parser: ArgumentParser) -> None:
    add_folder(parser)
    parser.add_argument("--deep", action="store_true", help="reads every byte of every checkpoint")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--repair", action="store_true", help="does what is safe: removes leftovers, marks lost runs")


def main(args: Namespace) -> int:
    folder = folder_of(args.sweep, args.words)
    found = [replace(p, remedy=p.remedy.replace("SWEEP", str(folder))) for p in problems(folder, args.deep)]
    repaired = [problem for problem in found if args.repair and _repaired(problem)]
    left = [problem for problem in found if problem not in repaired]
    if args.json:
        shown = [{"run": p.run, "what": p.what, "remedy": p.remedy, "repaired": p in repaired} for p in found]
        print(json.dumps({"folder": str(folder), "problems": shown}, indent=1))
    else:
        for problem in found:
            end = "repaired" if problem in repaired else problem.remedy
            print(f"{problem.run}: {problem.what}\n    {end}")
        done = f", {len(repaired)} of them repaired" if repaired else ""
        print(f"{folder}: {len(run_folders(folder))} run folders, {len(found) or 'no'} problems{done}")
    return 1 if left else 0


def _repaired(problem: Problem) -> bool:
    if problem.repair is None:
        return False
    try:
        problem.repair()
    except RunError as error:
        print(f"sweeps check: {problem.run}: {error}", file=sys.stderr)
        return False
    return True


def problems(folder: Path, deep: bool = False) -> Iterator[Problem]:
    """What is wrong in a sweep's folder. Nothing is written."""
    manifest = None
    if (folder / PLAN).exists():
        try:
            manifest = Manifest.read(folder)
        except RunError as error:
            yield Problem(PLAN, str(error), "plan it with the same words as before and --replace; no run is lost")
    if files := [path for path in sorted(folder.iterdir()) if path.is_file() and BESIDE.fullmatch(path.name)]:
        yield _leftover(folder.name, files, lambda: _remove(files))
    for planned in manifest.runs if manifest else ():
        if (path := folder / planned.id).exists() and not path.is_dir():
            yield Problem(planned.id, "is a file in the place of a run folder", f"remove {path}")
    for name in track(run_folders(folder), "checking", transient=True, disable=not sys.stdout.isatty()):
        plan = manifest.by_id.get(name) if manifest else None
        if manifest and not plan:
            remedy = f"remove {folder / name}, or plan the sweep with it and --replace"
            yield Problem(name, "is not planned", remedy)
        yield from _run_problems(Run(folder / name), plan, deep)


def _run_problems(run: Run, planned: Planned | None, deep: bool) -> Iterator[Problem]:
    name = run.path.name
    held = Held.read(run.path / LOCK)
    at_work = held is not None and not lost(run)
    if not at_work and (files := leftovers(run)):
        yield _leftover(name, files, lambda: _clean(run, files))
    state: str | None = None
    status: dict[str, Any] = {}
    try:
        status = run.status
        state = status.get("state")
        if status and state not in STATES:
            yield Problem(name, f"status.json: state {state}; allowed are {', '.join(STATES)}", *_as_preempted(run))
    except RunError as error:
        yield Problem(name, str(error), *_as_preempted(run))
    if not status and not (run.path / "config.yaml").exists():
        yield Problem(name, "holds neither config.yaml nor status.json", f"remove {run.path}, if it is no run")
        return
    if state == "running" and (gone := lost(run)) and run.state == "running":
        yield Problem(name, f"is lost, running without a living owner: {gone}", *_as_preempted(run))
    step, steps = status.get("step"), status.get("steps")
    if state == "done" and None not in (step, steps) and step != steps:
        yield Problem(name, f"is done at step {step} of {steps}", "python -m sweeps retry SWEEP --all")
    try:
        config = config_of(run)
    except RunError as error:
        yield Problem(name, str(error), _rewritten(state, run))
    else:
        yield from _config_problems(run, planned, config, state)
        if state == "done":
            yield from _missing_rows(run, config)
    try:
        run.rows()
    except RunError as error:
        yield Problem(name, str(error), f"remove it; python -m flowzoo.evaluate run={run.path} scores the run again")
    if not at_work:
        yield from _checkpoint_problems(run, state, deep)


def _config_problems(
    run: Run, planned: Planned | None, config: Mapping[str, Any], state: str | None
) -> Iterator[Problem]:
    name = run.path.name
    try:
        own = run_name(config)
    except (LookupError, TypeError, ValueError) as error:
        yield Problem(name, f"config.yaml is no config of a run: {error!r}", _rewritten(state, run))
        return
    if own != name and (run.path.parent / own).is_dir():
        yield Problem(
            name, f"is the same run as {own}, by its config", f"remove {run.path}, or restore its config.yaml"
        )
    elif own != name:
        yield Problem(name, f"config.yaml is that of {own}", _rewritten(state, run))
    elif planned and (words := departure(planned.config, config)):
        yield Problem(name, f"config.yaml: {words}", _rewritten(state, run))


def _missing_rows(run: Run, config: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        evaluation = config["evaluation"]
        settings = [(int(setting["steps"]), float(setting["guidance"])) for setting in evaluation["settings"]]
        wanted = {
            (weights, *setting)
            for weights in evaluation["weights"]
            for setting in ([min(settings)] if weights == "init" else settings)  # as flowzoo.scoring.settings_of
        }
        have = {(row["weights"], row["steps"], row["guidance"]) for row in run.rows()}
    except (LookupError, TypeError, ValueError, RunError):
        return  # said elsewhere
    if missing := wanted - have:
        weights, steps, guidance = min(missing)
        yield Problem(
            run.path.name,
            f"is done, but results.csv lacks {len(missing)} of {len(wanted)} settings, the first of them "
            f"{weights} weights, {steps} steps, guidance {guidance:g}",
            f"python -m flowzoo.evaluate run={run.path}",
        )


def _checkpoint_problems(run: Run, state: str | None, deep: bool) -> Iterator[Problem]:
    for path in (run.path / "checkpoints" / "last.ckpt", run.path / "checkpoints" / "best.ckpt"):
        if path.exists() and (words := damage(path, deep)):
            remedy = "python -m sweeps retry SWEEP --unfinished --from scratch trains it anew"
            if state in FINISHED:
                remedy = f"its rows stay valid; remove {path}"
            yield Problem(run.path.name, f"checkpoints/{path.name} is damaged: {words}", remedy)


def damage(path: Path, deep: bool = False) -> str:
    """What is wrong with a checkpoint, a ZIP file as torch.save writes it; empty where nothing is. No torch.

    Its directory stands at its end, so one cut short is found at once. `deep` reads all and compares checksums.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            broken = archive.testzip() if deep else None
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        return str(error)
    if broken:
        return f"the checksum of {broken} is wrong"
    return "" if any(name.endswith("/data.pkl") for name in names) else "it holds no state"


def leftovers(run: Run) -> list[Path]:
    """Files that dead processes left: half-written ones and locks."""
    folders = [run.path, run.path / "checkpoints", run.path / "samples"]
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    locks = [path for path in files if LOCKS.fullmatch(path.name)]
    dead = [path for path in locks if (held := Held.read(path)) and held.lost(time.time())]
    return dead + [path for path in files if BESIDE.fullmatch(path.name)]


def _leftover(name: str, files: list[Path], repair: Callable[[], None]) -> Problem:
    return Problem(
        name, f"leftovers of a killed process: {', '.join(p.name for p in files)}", f"{REPAIR} removes them", repair
    )


def _clean(run: Run, files: list[Path]) -> None:
    """The lock itself becomes ours and goes when we let go of it."""
    with run.lock():
        _remove([path for path in files if path.name != LOCK])


def _remove(files: list[Path]) -> None:
    for path in files:
        with saying(f"cannot remove {path}"):
            path.unlink(missing_ok=True)


def _as_preempted(run: Run) -> tuple[str, Callable[[], None]]:
    def repair() -> None:
        with run.lock():
            with suppress(RunError):
                if run.state in STATES and run.state != "running":  # it has ended since
                    return
            known = {}
            with suppress(RunError, LookupError, TypeError, ValueError):
                known = {"variant": run_variant(config_of(run))}
            run.set_status("preempted", **known)

    return f"{REPAIR} marks it preempted; the command that trains it goes on with it", repair


def _rewritten(state: str | None, run: Run) -> str:
    if state in FINISHED:
        return f"remove {run.path} and run it again, or restore its config.yaml"
    return "the command that trains it writes it anew"
