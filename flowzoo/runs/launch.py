"""The entry point of training commands, and the flags of commands that do one thing. Without torch."""

import atexit
import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import NoReturn

import hydra
from omegaconf import DictConfig

from flowzoo.paths import conf
from flowzoo.runs import variants
from flowzoo.runs.canonical import canonical
from flowzoo.runs.config import check_jobs, configs_of
from flowzoo.runs.grouping import is_stacked
from flowzoo.runs.hydras import VERSION_BASE, arguments, is_question
from flowzoo.runs.refusal import UserErrors, one_line, refuse
from flowzoo.runs.signals import handing_on
from flowzoo.runs.store import Interrupted, RunError, attempt


def launch(
    config_name: str,
    task: Callable[[DictConfig], int | None],
    together: Callable[[Sequence[DictConfig]], int] | None = None,
    ready: Callable[[Sequence[DictConfig]], None] | None = None,
) -> NoReturn:
    """The entry point of a training command: `task` is called with the config of each job that sys.argv asks for.

    The jobs are composed and checked first (flowzoo/runs/config.py), so that one bad job refuses the command before
    anything is written. Then Hydra composes them again and calls `task`, here or by its launcher.
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
            jobs = configs_of(args, config_name)
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
        print(f"{program}: {str(error) or 'interrupted'}; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print(f"{program}: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    sys.exit(max(codes, default=0))


def arguments_of_one(command: str, first: str = "", as_typed: Sequence[str] = ()) -> Namespace:
    """The arguments of a command that does one thing, with its own config: no multirun, no other config.

    Has Hydra answer --help and what else is a question, and exits; refuses flags that are for several jobs.
    `first` is what the command takes before key=value. Words whose key is in `as_typed` are none of Hydra's.
    """
    args = arguments()
    if is_question(args):
        sys.argv = [word for word in sys.argv if word.split("=", 1)[0] not in as_typed]
        hydra.main(config_path=str(conf()), config_name=command, version_base=VERSION_BASE)(lambda cfg: None)()
        sys.exit(0)
    if args.multirun or args.config_path or args.config_name or args.experimental_rerun:
        allowed = f"allowed are {first}key=value, --config-dir, --cfg job and --help"
        refuse(f"flowzoo.{command}", ValueError(allowed))
    return args
