"""From a command line to checked configs, without torch and before anything is written.

Hydra alone would create folders before it calls us, and could not refuse a whole multirun for one bad pair. So the
command is expanded here first, by Hydra's own parser and sweeper; every job is composed and checked; only then does
Hydra run it.
"""

import re
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.types import RunMode
from omegaconf import DictConfig

from flowzoo.paths import conf
from flowzoo.runs import variants
from flowzoo.runs.check import check_train
from flowzoo.runs.classes import check_callbacks
from flowzoo.runs.expand import Composed, Template, compose_batch
from flowzoo.runs.grouping import is_stacked
from flowzoo.runs.hydras import combinations, opened
from flowzoo.runs.identity import run_folder
from flowzoo.runs.parse import parse, refuse_several
from flowzoo.runs.slurm import check_notice


def configs_of(args: Namespace, config_name: str) -> list[DictConfig]:
    """The config of each job of a parsed command line, in order. Raises one of `refusal.UserErrors`."""
    if args.config_path or args.experimental_rerun:
        raise ValueError(
            "--config-path and --experimental-rerun are not supported: allowed are --config-dir and hydra.searchpath"
        )
    with config_loader(args.config_dir) as loader:
        jobs = compose_jobs(loader, args.config_name or config_name, args.overrides, args.multirun)
    if args.cfg and (args.multirun or len(jobs) > 1):
        raise ValueError("--multirun together with --cfg: allowed is the one or the other, --cfg shows a single job")
    return jobs


def compose_jobs(loader: ConfigLoader, config_name: str, overrides: Sequence[str], multirun: bool) -> list[DictConfig]:
    """The config of each job. Raises as `configs_of`."""
    return [job.cfg for job in expand_jobs(loader, config_name, overrides, multirun)]


def expand_jobs(loader: ConfigLoader, config_name: str, overrides: Sequence[str], multirun: bool) -> list[Composed]:
    """Expands `overrides` as Hydra's basic sweeper does and composes every job. Raises as `configs_of`."""
    overrides = list(overrides)
    typed = parse(overrides)
    for override in typed:
        if override.key_or_group == "variant" and override.value() is not None:
            _refuse_both(str(override.input_line), typed)
    values = [override.value() for override in typed if override.key_or_group == "variant"]
    variants.offer(
        str(name) for value in values for name in (value.list if isinstance(value, ChoiceSweep) else [value])
    )
    multirun = multirun or any((o.key_or_group, o.value()) == ("hydra.mode", "MULTIRUN") for o in typed)
    if not multirun:
        for override in typed:
            refuse_several(override)
    whole = loader.load_configuration(config_name, overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)
    if not multirun:
        if whole.hydra.mode == RunMode.MULTIRUN:
            raise ValueError("hydra.mode=MULTIRUN in a config file: allowed is -m in the command")
        return [_checked(Composed(Template(whole), {}), typed)]
    launcher = whole.hydra.launcher
    if "signal_delay_s" in launcher:
        limit, notice = launcher.timeout_min, launcher.signal_delay_s
        check_notice("hydra.launcher.timeout_min", limit, "hydra.launcher.signal_delay_s", notice)
    sweeper = whole.hydra.sweeper
    if not str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        raise ValueError(f"hydra/sweeper with _target_ {sweeper.get('_target_')}: allowed is Hydra's basic sweeper")
    given = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    parsed = parse([*given, *whole.hydra.overrides.task], loader)
    for override in parsed:
        if override.is_choice_sweep() and not list(override.sweep_iterator()):
            raise ValueError(f"{override.input_line}: matches no option")
    always = list(whole.hydra.overrides.hydra)
    return [_checked(job, typed) for job in compose_batch(loader, config_name, always, combinations(parsed))]


def _checked(job: Composed, typed: Sequence[Override]) -> Composed:
    if (variant := job.template.variant) is not None:
        _refuse_both(f"variant={variant}", typed)  # an experiment may have chosen it
    return job


def _refuse_both(variant: str, typed: Sequence[Override]) -> None:
    for override in typed:
        if re.split(r"[./]", override.key_or_group)[0] in ("path", "sampler"):
            raise ValueError(f"{variant} together with {override.input_line}: allowed is the one or the other")


def check_jobs(jobs: Sequence[DictConfig]) -> None:
    """Refuses the whole command for one bad job, or for two that are the same run. Raises ValueError."""
    if len(set(map(is_stacked, jobs))) > 1:
        raise ValueError("trainer=solo and trainer=stacked in one command: allowed is the one or the other")
    for cfg in jobs:
        check_train(cfg)
        check_callbacks(cfg)
    check_distinct(map(run_folder, jobs))


def check_distinct(folders: Iterable[Path]) -> None:
    """Raises ValueError where two jobs have the same folder."""
    known = set()
    for folder in folders:
        if folder in known:
            raise ValueError(
                f"two jobs of this command are the same run, {folder}: allowed are jobs that differ in what is trained "
                "(other solvers and metrics of one run: python -m flowzoo.evaluate)"
            )
        known.add(folder)


@contextmanager
def config_loader(config_dir: str | None = None) -> Iterator[ConfigLoader]:
    """Hydra's loader over conf/, for the block. A search path that does not exist is an error, not a warning."""
    variants.register()
    own = None if config_dir is None else Path(config_dir)
    if own is not None and not own.is_dir():
        raise ValueError(f"--config-dir {config_dir}: there is no such folder")
    try:
        with opened(conf(), own) as loader, warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*is not available")
            yield loader
    except UserWarning as warning:
        raise ValueError(str(warning)) from None
