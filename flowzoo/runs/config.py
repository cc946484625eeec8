"""From a command line to checked configs, without torch and before anything is written.

Hydra alone would create folders before it calls us, and could not refuse a whole multirun for one bad pair. So the
command is expanded here first, by Hydra's own parser and sweeper; every job is composed and checked; only then does
Hydra run it.
"""

import atexit
import os
import re
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from flowzoo.paths import conf
from flowzoo.runs import variants
from flowzoo.runs.canonical import canonical
from flowzoo.runs.check import check_callbacks, check_optimizer, check_train
from flowzoo.runs.expand import Job, Template, compose_batch
from flowzoo.runs.grouping import is_stacked
from flowzoo.runs.hydras import VERSION_BASE, arguments, combinations, is_question, opened
from flowzoo.runs.identity import run_folder
from flowzoo.runs.parse import parse, refuse_several
from flowzoo.runs.signals import handing_on
from flowzoo.runs.slurm import check_notice
from flowzoo.runs.store import Interrupted, RunError, attempt

# What a command is refused with.
UserErrors = (ValueError, HydraException, OmegaConfBaseException, YAMLError, RunError)


def launch(
    config_name: str,
    task: Callable[[DictConfig], int | None],
    together: Callable[[Sequence[DictConfig]], int] | None = None,
    ready: Callable[[Sequence[DictConfig]], None] | None = None,
) -> NoReturn:
    """The entry point of a training command: checks every job of sys.argv, then has Hydra call `task` for each.

    `ready` is asked about all jobs before the first begins; what it raises of `UserErrors` refuses the command.
    Jobs with trainer=stacked all go to `together` at once, in this process; it returns the exit code.

    Exits with 0, with 2 for a command that is refused, 1 where a job failed, 130 where one was interrupted.
    """
    program = f"flowzoo.{config_name}"
    variants.register()
    args = arguments()
    jobs: list[DictConfig] = []
    try:
        if not is_question(args):
            jobs = jobs_of(args, config_name)
            check_jobs(jobs)
        if ready and jobs and not args.cfg:
            ready(jobs)
    except UserErrors as error:
        refuse(program, error)
    except KeyboardInterrupt:
        print(f"{program}: stopped before anything was written", file=sys.stderr)
        sys.exit(130)

    codes: list[int] = []
    here = os.getpid()

    def one_job(cfg: DictConfig) -> int:
        try:
            with handing_on():
                code = attempt(task, canonical(cfg)) or 0
        except Exception as error:
            if os.getpid() != here:  # on a cluster: Hydra reports what was raised, and the scheduler sees a failed job
                atexit.register(os._exit, 1)
                raise
            if isinstance(error, RunError):
                print(f"{program}: {one_line(error)}", file=sys.stderr)
            else:
                traceback.print_exc()
            code = 1
        codes.append(code)
        return code

    try:
        if together and not args.cfg and any(map(is_stacked, jobs)):
            sys.exit(together(jobs))
        hydra.main(config_path=str(conf()), config_name=config_name, version_base=VERSION_BASE)(one_job)()
    except RunError as error:  # of runs that go together, before any of them has begun
        refuse(program, error)
    except Interrupted as error:
        print(f"{program}: {error or 'interrupted'}; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print(f"{program}: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    sys.exit(max(codes, default=0))


def jobs_of(args: Namespace, config_name: str) -> list[DictConfig]:
    """The config of each job of a parsed command line, in order. Raises one of `UserErrors`."""
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
    """The config of each job. Raises as `jobs_of`."""
    return [job.cfg for job in expand_jobs(loader, config_name, overrides, multirun)]


def expand_jobs(loader: ConfigLoader, config_name: str, overrides: Sequence[str], multirun: bool) -> list[Job]:
    """Expands `overrides` as Hydra's basic sweeper does and composes every job. Raises as `jobs_of`."""
    overrides = list(overrides)
    typed = parse(overrides)
    for override in typed:
        if override.key_or_group == "variant" and override.value() is not None:
            _refuse_both(str(override.input_line), typed)
    multirun = multirun or any((o.key_or_group, o.value()) == ("hydra.mode", "MULTIRUN") for o in typed)
    if not multirun:
        for override in typed:
            refuse_several(override)
    whole = loader.load_configuration(config_name, overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)
    if not multirun:
        if whole.hydra.mode == RunMode.MULTIRUN:
            raise ValueError("hydra.mode=MULTIRUN in a config file: allowed is -m in the command")
        return [_checked(Job(Template(whole), {}), typed)]
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


def _checked(job: Job, typed: Sequence[Override]) -> Job:
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
        check_optimizer(cfg)
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


def refuse(program: str, error: Exception) -> NoReturn:
    """Prints `error` as one line and exits with 2."""
    print(f"{program}: {one_line(error)}", file=sys.stderr)
    sys.exit(2)


def one_line(error: BaseException) -> str:
    """An error's message and its cause's, without Hydra's line breaks, search path and links."""
    if isinstance(error, ConfigCompositionException) and (unknown := _unknown_key(error)):
        return unknown
    texts = [str(error)]
    if isinstance(error.__cause__, OmegaConfBaseException):
        texts.append(str(error.__cause__))
    lines = [
        line
        for text in texts
        for line in re.split(r"\n\s*(?:Search path|Config search path|full_key):", text)[0].splitlines()
    ]
    options = [line.strip() for line in lines if line.startswith("\t")]
    words = [line.strip() for line in lines if not line.startswith("\t") and not line.startswith("See http")]
    return " ".join([*filter(None, words), ", ".join(options)]).strip()


def _unknown_key(error: ConfigCompositionException) -> str:
    """The line for a key that the composed config does not have; empty for any other error.

    Hydra's own advises `+key`, which is refused wherever nothing reads the key.
    """
    typed, cause = re.match(r"Could not override '([^']+)'", str(error)), error.__cause__
    parent = getattr(cause, "parent_node", None)
    if not (typed and isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(parent, DictConfig)):
        return ""
    place, _, name = (cause.full_key or typed[1]).rpartition(".")
    if (place, name) == ("", "stack"):
        return f"{typed[1]}: allowed with trainer=stacked alone, which is a sweep's engine=stacked"
    keys = ", ".join(str(key) for key in parent if not str(key).startswith("_")) or "none"
    return f"{typed[1]}: there is no {name} in {place or 'the config'} as it is composed; allowed there: {keys}"
