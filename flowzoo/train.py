"""Trains, samples and scores formulations: `python -m flowzoo.train path=rf sampler=lognorm`.

Every job of the command is composed of conf/train.yaml and its words, and checked, before anything is written: one bad
job refuses them all. Then Hydra calls `run` with the config of each, here or by its launcher.
"""

import atexit
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from flowzoo.imports import swiftly
from flowzoo.paths import conf
from flowzoo.runs import variants
from flowzoo.runs.canonical import canonical
from flowzoo.runs.config import check_jobs, configs_of
from flowzoo.runs.grouping import is_stacked
from flowzoo.runs.hydras import VERSION_BASE, arguments, is_question
from flowzoo.runs.output import follow
from flowzoo.runs.refusal import UserErrors, one_line, refuse
from flowzoo.runs.signals import handing_on, stoppable
from flowzoo.runs.store import Interrupted, RunError, attempt

PROGRAM = "flowzoo.train"


def imported(name: str) -> Any:
    """A module of flowzoo that imports torch, which takes seconds: a signal interrupts it."""
    with swiftly():
        return stoppable(import_module)(name)


def run(*cfgs: DictConfig) -> None:
    """Runs of one kind, or one alone, from configs to rows; the same call goes on where an earlier one stopped."""
    build, lifecycle = map(imported, ("flowzoo.build", "flowzoo.training.lifecycle"))
    lifecycle.train_and_score(stoppable(build.jobs_left)(cfgs))


def run_together(cfgs: Sequence[DictConfig]) -> int:
    """Runs with trainer=stacked, many in one program; returns the exit code."""
    code: int = imported("flowzoo.stacks").run_stacks(cfgs)
    return code


def ready(cfgs: Sequence[DictConfig]) -> None:
    """Opens the data of all runs, and makes what looks at images, before the first begins. Raises RunError."""
    imported("flowzoo.sources").open_ahead(cfgs, lambda kinds: imported("flowzoo.build").try_parts(kinds))


def main() -> NoReturn:
    """Exits with 0, with 2 for a command that is refused, 1 where a job failed, 130 where one was interrupted."""
    variants.register()
    args = arguments()
    cfgs: list[DictConfig] = []
    try:
        if not is_question(args):
            cfgs = configs_of(args, "train")
            check_jobs(cfgs)
        if cfgs and not args.cfg:
            ready(cfgs)
    except UserErrors as error:
        refuse(PROGRAM, error)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped before anything was written", file=sys.stderr)
        sys.exit(130)

    codes: list[int] = []
    here = os.getpid()

    def one_job(cfg: DictConfig) -> int:
        code = 0
        try:
            with handing_on():
                attempt(run, canonical(cfg))
        except Exception as error:
            if os.getpid() != here:  # on a cluster: Hydra reports what was raised, and the scheduler sees a failed job
                atexit.register(os._exit, 1)
                raise
            if isinstance(error, RunError):
                print(f"{PROGRAM}: {one_line(error)}", file=sys.stderr)
            else:
                traceback.print_exc()
            code = 1
        codes.append(code)
        return code

    try:
        if not args.cfg and any(map(is_stacked, cfgs)):
            sys.exit(run_together(cfgs))
        hydra.main(config_path=str(conf()), config_name="train", version_base=VERSION_BASE)(one_job)()
    except RunError as error:  # of runs that go together, before any of them has begun
        refuse(PROGRAM, error)
    except Interrupted as error:
        print(f"{PROGRAM}: {str(error) or 'interrupted'}; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    sys.exit(max(codes, default=0))


if __name__ == "__main__":
    follow()
    main()
