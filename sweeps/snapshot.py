"""A copy of the source that jobs run, so that edits do not change what is queued."""

import importlib.util
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flowzoo
from flowzoo.paths import conf
from flowzoo.runs.store import code_version

ROOT = Path(flowzoo.__file__).resolve().parents[1]
PARTS = ("flowzoo", "sweeps", "analysis")


def take(configs: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Copies flowzoo, its configs and the modules from elsewhere that `configs` name as `_target_` into `target`.

    The copy's version is the checkout's, commit and all.
    """
    skip = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        shutil.copytree(ROOT / part, target / part, ignore=skip)
    shutil.copytree(conf(), target / "flowzoo" / "conf", ignore=skip, dirs_exist_ok=True)
    with open(target / "flowzoo" / "__init__.py", "a") as file:
        file.write(f'\n__version__ = "{code_version()}"  # of the source that this is a copy of\n')
    for name in {module.split(".")[0] for config in configs for module in _targets(config)} - set(PARTS):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or _is_installed(Path(spec.origin)):
            continue
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, target / name, ignore=skip)
        else:
            shutil.copy(origin, target)


def exports(source: Path) -> list[str]:
    """Shell lines that have Python import from the copy first, and from the folder of the command last."""
    return ["export PYTHONSAFEPATH=1", f'export PYTHONPATH="{source}:${{PYTHONPATH:+$PYTHONPATH:}}{Path.cwd()}"']


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _is_installed(path: Path) -> bool:
    return any(path.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix))
