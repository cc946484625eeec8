"""python -m sweeps check SWEEP [--deep] [--json] [--repair]: what is wrong in its folders, and what repairs it."""

import json
import os
import re
import sys
import time
import zipfile
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import track

from flowzoo.runs.files import RunError, saying
from flowzoo.runs.finding import folders_in
from flowzoo.runs.identity import comparable, run_name, run_variant
from flowzoo.runs.layout import CONFIG, FINISHED, PLAN, RESULTS, STATES, STATUS
from flowzoo.runs.lock import LOCK, Held
from flowzoo.runs.reading import HERE, RunFolder
from flowzoo.runs.rows import rows_wanted, setting_of, settings_of
from flowzoo.runs.signals import shielded
from flowzoo.runs.store import Run
from sweeps.manifest import Manifest, Planned, departure
from sweeps.standing import folder_of
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
        swept = _swept(folder) if found else {}
        for problem in found:
            end = "repaired" if problem in repaired else problem.remedy
            told = f" ({own})" if (own := swept.get(problem.run)) else ""
            print(f"{problem.run}{told}: {problem.what}\n    {end}")
        done = f", {len(repaired)} of them repaired" if repaired else ""
        print(f"{folder}: {len(folders_in(folder))} run folders, {len(found) or 'no'} problems{done}")
    return 1 if left else 0


def _swept(folder: Path) -> dict[str, str]:
    """By run, what it has otherwise than others of the plan, as far as there is one."""
    with suppress(RunError):
        return Manifest.read(folder).swept
    return {}


def _repaired(problem: Problem) -> bool:
    if problem.repair is None:
        return False
    try:
        shielded(problem.repair)()  # it holds the run's lock
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
    if files := [path for path in sorted(folder.iterdir()) if BESIDE.fullmatch(path.name) and os.path.isfile(path)]:
        yield _leftover(folder.name, files, lambda: _remove(files))
    for planned in manifest.runs if manifest else ():
        if os.path.exists(path := folder / planned.id) and not path.is_dir():
            yield Problem(planned.id, "is a file in the place of a run folder", f"remove {path}")
    seen: list[RunFolder] = []
    for name in track(folders_in(folder), "checking", transient=True, disable=not sys.stdout.isatty()):
        plan = manifest.by_id.get(name) if manifest else None
        if manifest and not plan:
            remedy = f"remove {folder / name}, or plan the sweep with it and --replace"
            yield Problem(name, "is not planned", remedy)
        seen.append(RunFolder(folder / name, vars(plan) if plan else None))
        yield from _run_problems(seen[-1], plan, deep)
    yield from _other_data(seen)


def _other_data(folders: Iterable[RunFolder]) -> Iterator[Problem]:
    """Runs whose images are not those of most runs with the same data section: replaced in between, under one name."""
    alike: dict[str, list[RunFolder]] = {}
    for one in folders:
        if one.data:
            alike.setdefault(json.dumps(comparable(one.config).get("data"), sort_keys=True), []).append(one)
    for some in alike.values():
        (usual, count), *others = Counter(one.data for one in some).most_common()
        for one in some if others else ():
            if one.data != usual:
                yield Problem(
                    one.name,
                    f"was trained on other data ({one.data[:8]}) than {count} run{'s' if count > 1 else ''} of "
                    f"this sweep ({usual[:8]})",
                    f"its rows are ranked apart; remove {one.path} and run it again on the same data",
                )


def _run_problems(folder: RunFolder, planned: Planned | None, deep: bool) -> Iterator[Problem]:
    name, run = folder.name, Run(folder.path)
    state, status = folder.state, folder.status
    if HERE in folder.unreadable:
        remedy = "give it its permissions, or what its link leads to, back; or remove it"
        yield Problem(name, f"cannot read {folder.path}: {folder.unreadable[HERE]}", remedy)
        return
    if not status and CONFIG not in folder.names and STATUS not in folder.names:
        yield Problem(name, "holds neither config.yaml nor status.json", f"remove {folder.path}, if it is no run")
        return
    try:
        left, at_work = leftovers(folder.path), _is_held(folder.path)
    except OSError as error:
        left, at_work = [], True
        yield Problem(name, f"cannot read {error.filename}: {error.strerror}", f"remove {error.filename}")
    if left and not at_work:
        yield _leftover(name, left, lambda: _clean(run, left))
    if state == "lost":
        yield Problem(name, f"is lost, running without a living owner: {folder.why_lost}", *_as_preempted(folder))
    if STATUS not in folder.names and folder.rows:
        yield Problem(name, "has rows and no status.json", "the command that trains it goes on with it")
    step, steps = status.get("step"), status.get("steps")
    if state == "done" and None not in (step, steps) and step != steps:
        yield Problem(name, f"is done at step {step} of {steps}", "python -m sweeps retry SWEEP --all")
    if folder.config:
        yield from _config_problems(folder, planned)
        if state == "done":
            yield from _missing_rows(folder)
    elif CONFIG not in folder.names:
        yield Problem(name, "has no config.yaml", _rewritten(folder))
    with suppress(OSError):
        yield from _unreadable(folder)
    if not at_work:
        yield from _checkpoint_problems(folder, deep)


def _unreadable(folder: RunFolder) -> Iterator[Problem]:
    _ = folder.density, folder.extractor
    complaints = folder.complaints()
    for name, line in zip(folder.unreadable, complaints, strict=True):
        remedy, repair = f"give it its permissions back, or remove {folder.path / name}", None
        if name == STATUS:
            remedy, repair = _as_preempted(folder)
        elif name == CONFIG:
            remedy = _rewritten(folder)
        elif name == RESULTS:
            remedy = f"remove it; python -m flowzoo.evaluate run={folder.path} scores the run again"
        yield Problem(folder.name, line, remedy, repair)


def _is_held(path: Path) -> bool:
    """Whether a living process, or one of which nothing is known, holds the run. Raises OSError."""
    held = Held.read(path / LOCK)
    return held is not None and not held.lost(time.time())


def _config_problems(folder: RunFolder, planned: Planned | None) -> Iterator[Problem]:
    name, path = folder.name, folder.path
    try:
        own = run_name(folder.config)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        yield Problem(name, f"config.yaml is no config of a run: {error!r}", _rewritten(folder))
        return
    if own != name and (path.parent / own).is_dir():
        yield Problem(name, f"is the same run as {own}, by its config", f"remove {path}, or restore its config.yaml")
    elif own != name:
        yield Problem(name, f"config.yaml is that of {own}", _rewritten(folder))
    elif planned and (words := departure(planned.config, folder.config)):
        yield Problem(name, f"config.yaml: {words}", _rewritten(folder))


def _missing_rows(folder: RunFolder) -> Iterator[Problem]:
    try:
        evaluation = folder.config["evaluation"]
        wanted = {(one, *setting) for one, setting in rows_wanted(evaluation["weights"], settings_of(evaluation))}
        have = {(row["weights"], *setting_of(row, evaluation)) for row in folder.rows}
    except (LookupError, TypeError, ValueError):
        return  # said elsewhere
    if RESULTS not in folder.unreadable and (missing := wanted - have):
        weights, steps, guidance, grid = min(missing)
        yield Problem(
            folder.name,
            f"is done, but results.csv lacks {len(missing)} of {len(wanted)} settings, the first of them "
            f"{weights} weights, {steps} steps, guidance {guidance:g}" + (f", grid {grid}" if grid else ""),
            f"python -m flowzoo.evaluate run={folder.path}",
        )


def _checkpoint_problems(folder: RunFolder, deep: bool) -> Iterator[Problem]:
    for path in (folder.path / "checkpoints" / "last.ckpt", folder.path / "checkpoints" / "best.ckpt"):
        if os.path.lexists(path) and (words := damage(path, deep)):
            remedy = "python -m sweeps retry SWEEP --unfinished --from scratch trains it anew"
            if folder.state in FINISHED:
                remedy = f"its rows stay valid; remove {path}"
            yield Problem(folder.name, f"checkpoints/{path.name} is damaged: {words}", remedy)


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


def leftovers(run: Path) -> list[Path]:
    """Files that dead processes left in a run folder: half-written ones and locks. Raises OSError."""
    folders = [run, run / "checkpoints", run / "samples"]
    files = [path for folder in folders if os.path.isdir(folder) for path in sorted(folder.iterdir())]
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


def _as_preempted(folder: RunFolder) -> tuple[str, Callable[[], None]]:
    def repair() -> None:
        run = Run(folder.path)
        with run.lock():
            with suppress(RunError):
                if run.state in STATES and run.state != "running":  # it has ended since
                    return
            known = {}
            with suppress(LookupError, TypeError, ValueError, AttributeError):
                known = {"variant": run_variant(folder.config)}
            run.set_status("preempted", **known)

    return f"{REPAIR} marks it preempted; the command that trains it goes on with it", repair


def _rewritten(folder: RunFolder) -> str:
    if folder.state in FINISHED:
        return f"remove {folder.path} and run it again, or restore its config.yaml"
    return "the command that trains it writes it anew"
