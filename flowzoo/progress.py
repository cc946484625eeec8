"""Progress of long work: a bar on a terminal, silence in a log file."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")


def track(work: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yields from `work` under a bar that goes away at the end."""
    hidden = not Console().is_terminal
    return iter(progress.track(work, title, total, transient=True, disable=hidden))
