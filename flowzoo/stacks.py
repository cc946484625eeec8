"""Runs of any kinds in stacks: grouped by kind, cut by memory, dealt to the GPUs of a host."""

import sys
import traceback
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from flowzoo.build import jobs_left, jobs_of, loop_of
from flowzoo.fleet import ATTEMPTS, INTERRUPTED, Fleet, Worker, gpus
from flowzoo.job import Stack
from flowzoo.runs.grouping import alone, cut, dealt, grouped, split
from flowzoo.runs.identity import run_folder
from flowzoo.runs.signals import check, shielded, stoppable
from flowzoo.runs.store import (
    FINISHED,
    Interrupted,
    Run,
    RunBusy,
    RunError,
    data_of,
    explained,
    latents_known,
    record_failure,
)
from flowzoo.sources import other_data, source_of
from flowzoo.training.lifecycle import train_and_score
from flowzoo.training.memory import limit_of
from flowzoo.training.surroundings import check_here


def run_stacks(cfgs: Sequence[DictConfig]) -> int:
    """Trains and scores all runs, `trainer=stacked`. Returns the exit code: 0, 1 with failures, 130 when interrupted.

    A stack that fails is recorded in each of its runs and passed over. Finished runs are left out. Raises Unfit.
    """
    for cfg in cfgs:
        check_here(loop_of(cfg))
    settings = cfgs[0].stack
    jobs = [cfg for cfg in map(alone, cfgs) if Run(run_folder(cfg)).state not in FINISHED]
    if len(jobs) < len(cfgs):
        _say(f"{len(cfgs) - len(jobs)} of {len(cfgs)} runs are finished already")
    wanted = settings.processes
    processes = min(len(jobs), _gpus(cfgs[0]) if wanted == "auto" else wanted)
    size = None if settings.size == "auto" else int(settings.size)
    if loop_of(cfgs[0]).processes > 1:  # which train each stack together, and must cut the runs alike
        return _run_all(jobs, size or max(1, len(jobs)))
    if processes <= 1:
        return _run_all(jobs, size)
    shares = dealt(jobs, processes)
    _say(f"{len(jobs)} runs dealt to {processes} processes: {', '.join(str(len(share)) for share in shares)}")
    return _deal(shares, size)


def _gpus(cfg: DictConfig) -> int:
    return len(gpus()) if cfg.trainer.accelerator in ("auto", "gpu", "cuda") else 1


def _run_all(jobs: Sequence[DictConfig], size: int | None) -> int:
    """One stack after another in this process."""
    try:
        return shielded(_run_in_turn)(jobs, size)
    except KeyboardInterrupt as error:
        words = str(error) if isinstance(error, Interrupted) else "stopped"
        print(f"{words}; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _run_in_turn(jobs: Sequence[DictConfig], size: int | None) -> int:
    code = 0
    for kind in grouped(jobs):
        try:
            fitting, refused = _on_these_data(kind)
            groups = _by_latents(fitting)
        except Exception as error:
            _failed(kind, error)
            code = 1
            continue
        for cfg, words in refused:
            _failed([cfg], RunError(words))
            code = 1
        for group in groups:
            code = max(code, _run_kind(group, size))
    return code


def _run_kind(group: Sequence[DictConfig], size: int | None) -> int:
    try:
        sizes = split(len(group), size or stoppable(_fitting)(group))
    except Exception as error:
        _failed(group, error)
        return 1
    code = 0
    _say(described(sizes))
    for stack in cut(group, sizes):
        check()
        try:
            train_and_score(stoppable(jobs_left)(stack))
        except Exception as error:
            _failed(stack, error)
            code = 1
    return code


def _by_latents(group: Sequence[DictConfig]) -> list[list[DictConfig]]:
    """The runs that have begun with the same latents, each kind by itself; those that have not join the first kind.

    Latents of the same images differ by rounding where one run began on a GPU and another on a CPU.
    """
    known = [latents_known(run_folder(cfg)) for cfg in group]
    first = next((told for told in known if told is not None), None)
    kinds: dict[str | None, list[DictConfig]] = {}
    for cfg, told in zip(group, known, strict=True):
        kinds.setdefault(told or first, []).append(cfg)
    return list(kinds.values())


def _on_these_data(group: Sequence[DictConfig]) -> tuple[list[DictConfig], list[tuple[DictConfig, str]]]:
    """The runs of a group that can be trained on the data as they are now, and those that were begun on others."""
    if all(data_of(run_folder(cfg)) is None for cfg in group):
        return list(group), []
    train = source_of(group[0], "train")
    told = [(cfg, other_data(cfg, run_folder(cfg), train)) for cfg in group]
    return [cfg for cfg, words in told if not words], [(cfg, words) for cfg, words in told if words]


def _fitting(group: Sequence[DictConfig]) -> int:
    """How many of these runs fit into memory at once."""
    if len(group) == 1:
        return 1
    return limit_of(Stack(jobs_of(group)))


def described(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"{sizes[0]} variant{'s' if sizes[0] > 1 else ''} in 1 stack"
    shown = ", ".join(map(str, sizes[:-1]))
    return f"{sum(sizes)} variants in {len(sizes)} stacks of {shown} and {sizes[-1]}"


def _failed(stack: Sequence[DictConfig], error: Exception) -> None:
    told = explained(error)
    if not isinstance(told, RunError):
        traceback.print_exception(error)
    for cfg in stack:
        words = f"{run_folder(cfg)}: {' '.join(str(told).split()) or type(told).__name__}"
        try:
            if record_failure(cfg, told):
                print(f"failed: {words}", file=sys.stderr)
        except RunBusy as other:
            print(other, file=sys.stderr)
        except RunError as second:
            print(f"failed: {words}" + (f"; {second}" if str(second) != str(told) else ""), file=sys.stderr)


def _deal(shares: Sequence[Sequence[DictConfig]], size: int | None) -> int:
    """One process a share, with a GPU of its own where there are GPUs; what a killed one held is tried again."""

    def again(worker: Worker, deaths: int) -> bool:
        told = f"process {worker.number} of {len(shares)} {worker.ended}"
        if deaths < ATTEMPTS:
            _say(f"{told}; what it held once more")
            return True
        left = [cfg for cfg in shares[worker.number] if not Run(run_folder(cfg)).is_finished]
        _failed(left, RunError(f"{told}, the last of {ATTEMPTS} times"))
        return False

    with Fleet(len(shares)) as fleet:
        texts = [([OmegaConf.to_yaml(cfg) for cfg in share], size) for share in shares]
        codes = fleet.work(_share, texts, again=again)
        received = bool(fleet.received)
    if received:
        return INTERRUPTED
    return 1 if any(codes) else 0


def _share(texts: Sequence[str], size: int | None) -> int:
    """What one of several processes does."""
    jobs = []
    for text in texts:
        cfg = OmegaConf.create(text)
        assert isinstance(cfg, DictConfig)
        OmegaConf.set_struct(cfg, True)
        jobs.append(cfg)
    return _run_all(jobs, size)


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)
