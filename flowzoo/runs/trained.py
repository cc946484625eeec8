"""Commands about a run that exists: `run=DIR` names it, its own config.yaml is the base, and little may be changed."""

import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowzoo.paths import user_path
from flowzoo.runs.check import check_stored
from flowzoo.runs.config import config_loader
from flowzoo.runs.limits import OPTION_LIMITS, check_limits
from flowzoo.runs.parse import single
from flowzoo.runs.refusal import UserErrors, one_line, refuse
from flowzoo.runs.single import arguments_of_one
from flowzoo.runs.store import Run, RunError, explained

# Taken as typed: commas, quotes, brackets, `=` and `!` are part of a path or a prompt, and Hydra never parses them.
AS_TYPED = ("run", "prompt", "prompts", "negative", "negatives", "out")

# What may be said anew about a trained run: how it is sampled and scored, on what machine, and where its data lie now.
OPEN = (
    *("solver", "extractor", "metric", "evaluation", "trainer.accelerator", "trainer.precision", "trainer.compile"),
    *("data.source.path", "data.source.val_path", "data.cache", "data.workers"),
)
# Where the weights of a frozen network lie now: they are known by their content, and no others are taken.
MOVED = ("text.encoders.*.weights", "autoencoder.weights")


class Trained(NamedTuple):
    """A run, the command's own options (conf/<command>.yaml), and the run's config with what the command changes.

    The options are plain values and no config, which would read `${...}` and `???` in a prompt.
    """

    run: Run
    options: SimpleNamespace
    cfg: DictConfig


def launch_trained(command: str, check: Callable[[Trained], None], task: Callable[[Trained], int | None]) -> NoReturn:
    """The entry point of `python -m flowzoo.<command> run=DIR ...`: checks sys.argv, then calls `task`.

    `check` raises ValueError for what the command's own options get wrong.
    Exits with 0, with 2 for a command that is refused, 1 where the task raises RunError, 130 where it is interrupted.
    """
    program = f"flowzoo.{command}"
    args = arguments_of_one(command, "run=DIR, ", AS_TYPED)
    try:
        trained = load_run(command, args.overrides, args.config_dir)
        check(trained)
    except UserErrors as error:
        refuse(program, error)
    if args.cfg:
        print(yaml.safe_dump({command: vars(trained.options)}, sort_keys=False, allow_unicode=True), end="")
        print(OmegaConf.to_yaml(OmegaConf.create({"config": trained.cfg})), end="")
        sys.exit(0)
    try:
        sys.exit(task(trained) or 0)
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not isinstance(told := explained(error), RunError):
            raise
        print(f"{program}: {one_line(told)}", file=sys.stderr)
        sys.exit(1)


def load_run(command: str, argv: Sequence[str], config_dir: str | None = None) -> Trained:
    """The run that `run=DIR` names, with the overrides of `argv` applied and everything checked.

    Raises ValueError, RunError and Hydra's own errors for a user's mistake.
    """
    typed = [word for word in argv if word.split("=", 1)[0] in AS_TYPED and "=" in word]
    overrides = single([word for word in argv if word not in typed])
    with config_loader(config_dir) as loader:
        search = [str(o.input_line) for o in overrides if o.is_hydra_override()]
        options = _options(loader, command, search)
        changes = [o for o in overrides if not o.is_hydra_override() and not hasattr(options, o.key_or_group)]
        for o in changes:
            key = o.key_or_group.replace("/", ".")
            moved = any(fnmatchcase(key, pattern) for pattern in MOVED)
            if not moved and not any(key == allowed or key.startswith(allowed + ".") for allowed in OPEN):
                allowed = ", ".join((*vars(options), *OPEN, *MOVED))
                raise ValueError(f"{o.input_line}: a trained run keeps its {key}; allowed are {allowed}")
        groups = [o for o in changes if loader.get_group_options(o.key_or_group, ObjectType.CONFIG)]
        chosen = loader.load_configuration(command, search + [str(o.input_line) for o in groups], RunMode.RUN)

    given = {key: value for key, _, value in (word.partition("=") for word in typed)}
    for key in given.keys() - vars(options):
        raise ValueError(f"{key}={given[key]}: flowzoo.{command} takes none; allowed are {', '.join(vars(options))}")
    vars(options).update(given)
    vars(options).update((o.key_or_group, o.value()) for o in overrides if hasattr(options, o.key_or_group))
    check_limits(vars(options), OPTION_LIMITS)
    if not options.run:
        raise ValueError("run= is missing: allowed is the folder of a run, runs/<sweep>/<run>")
    run = Run.open(user_path(options.run))
    cfg = run.config
    # Outer groups first: `solver/grid` changes the solver that `solver` chose, in whatever order they were typed.
    for key in sorted((o.key_or_group.replace("/", ".") for o in groups), key=lambda key: key.count(".")):
        OmegaConf.update(cfg, key, OmegaConf.select(chosen, key), merge=False, force_add=True)
    _set(cfg, [(o.key_or_group, o.value()) for o in changes if o not in groups])
    check_stored(cfg)
    checkpoint = run.path / "checkpoints" / f"{getattr(options, 'checkpoint', 'last')}.ckpt"
    if not checkpoint.is_file():
        raise RunError(f"run={run.path}: there is no {checkpoint.name} yet, the run is {run.state or 'not started'}")
    return Trained(run, options, cfg)


def _options(loader: ConfigLoader, command: str, search: list[str]) -> SimpleNamespace:
    """The keys of conf/<command>.yaml that are no groups, with their defaults; None where there is none."""
    whole = loader.load_configuration(command, search, RunMode.RUN)
    keys = [str(key) for key in whole if key != "hydra" and not loader.get_group_options(str(key), ObjectType.CONFIG)]
    return SimpleNamespace(**{key: None if OmegaConf.is_missing(whole, key) else whole[key] for key in keys})


def _set(cfg: DictConfig, pairs: Sequence[tuple[str, Any]]) -> None:
    for key, value in pairs:
        try:
            OmegaConf.update(cfg, key, value, merge=False)
        except OmegaConfBaseException as error:
            raise ValueError(f"{key}={value}: {str(error).splitlines()[0]}") from None
