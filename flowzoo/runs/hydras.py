"""What is taken from Hydra's private modules and what is changed in Hydra, each with its reason; hydra-core < 1.4.

All else is Hydra's public interface. `tests/runs/test_hydras.py` looks for private names anywhere else.
"""

import copy
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

from hydra import initialize_config_dir
from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import _locate, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult, ConfigSource

VERSION_BASE = "1.3"


def arguments(argv: Sequence[str] | None = None) -> Namespace:
    """The arguments of a command, sys.argv by default, read as `hydra.main` reads them.

    Private, since commands are checked before `hydra.main`, which creates folders, sees them.
    """
    return get_args_parser().parse_args(argv)


def is_question(args: Namespace) -> bool:
    """Whether the command asks Hydra itself: --help, --hydra-help, --info, completions of a shell."""
    return bool(args.help or args.hydra_help or args.shell_completion or args.info)


def locate(target: str) -> Any:
    """What a `_target_` names. Raises any error.

    Private, since `hydra.utils.get_object` also writes the error to the log, beside the one line that we print.
    """
    return _locate(target)


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """The words of each job of a multirun, in the order of Hydra's basic sweeper. Raises HydraException.

    Private, since the sweeper offers this only together with running the jobs.
    """
    (batch,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    return batch


@cache
def hasten() -> None:
    """Has Hydra do once, or not at all, what it does anew for every config. What it composes stays the same."""
    # It copies the whole store for every config that it loads and every group that it lists, and hands out copies of
    # its nodes besides: with 61 variants in the store that alone takes seconds.
    ConfigStore.__deepcopy__ = lambda self, _: self  # type: ignore[attr-defined]
    # It reads some thirty files anew for every job.
    ConfigRepository.load_config = lambda self, config_path: copy.deepcopy(_read(self, config_path))  # type: ignore
    defaults_list._create_interpolation_map = _where_asked_for(defaults_list._create_interpolation_map)


_load = ConfigRepository.load_config
_known: dict[tuple[Any, ...], tuple[Any, ConfigResult | None]] = {}


def _read(repository: ConfigRepository, config_path: str) -> ConfigResult | None:
    """What Hydra loads, which is not to be changed; read again only where a file has changed since."""
    sources = repository.sources
    key = (config_path, *((source.provider, source.path) for source in sources))
    state = [_state(source, config_path) for source in sources]
    if key not in _known or _known[key][0] != state:
        _known[key] = state, _load(repository, config_path)
    return _known[key][1]


def _state(source: ConfigSource, config_path: str) -> Any:
    """What differs once the source has another config of this name."""
    if source.scheme() != "file":
        return source.is_config(config_path)
    try:
        file = os.stat(os.path.join(source.path, source._normalize_file_name(config_path)))
    except OSError:
        return None
    return file.st_mtime_ns, file.st_size, file.st_ino


def _where_asked_for(choices: Callable[..., Any]) -> Callable[..., Any]:
    """`choices`, of which Hydra makes a config for every defaults list; only names with an interpolation look at it."""

    def asked_for(overrides: Any, defaults: Sequence[Any], self_added: bool) -> Any:
        return choices(overrides, defaults, self_added) if any(one.is_interpolation() for one in defaults) else None

    return asked_for


@contextmanager
def opened(folder: Path, own: Path | None = None) -> Iterator[ConfigLoader]:
    """Hydra's loader over a folder of configs and, for options that are not there, over `own`; for the block."""
    hasten()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), job_name="flowzoo", version_base=VERSION_BASE):
            loader = GlobalHydra.instance().config_loader()
            path = loader.get_search_path()
            if own is not None:
                path.prepend("command-line", f"file://{own.resolve()}", SearchPathQuery(provider="schema"))
            loader.repository = Repository(path)  # type: ignore[attr-defined]
            yield loader
    finally:
        GlobalHydra.instance().clear()


def repository_of(loader: ConfigLoader) -> "Repository":
    """Of a loader that `opened` gave."""
    repository = loader.repository  # type: ignore[attr-defined]
    assert isinstance(repository, Repository)
    return repository


class Repository(ConfigRepository):
    """Hydra's, which knows what it has loaded, and options that are in no file.

    Private, since Hydra has no public way to keep either.
    """

    def __init__(self, search_path: ConfigSearchPath) -> None:
        self.known: dict[str, ConfigResult | None] = {}
        self.searched: list[Any] = []
        super().__init__(search_path)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # Hydra copies it for every job, so that a job may change the search path: see below

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        paths = config_search_path.get_path()
        if paths != self.searched:
            self.searched = list(paths)
            self.known.clear()
            super().initialize_sources(config_search_path)

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self.known:
            self.known[config_path] = _read(self, config_path)
        return copy.deepcopy(self.known[config_path])

    def config_exists(self, config_path: str) -> bool:
        return config_path in self.known or super().config_exists(config_path)
