"""What a data set is, told before it is trained on: how many images, which captions, what was passed over and why."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flowzoo.data.source import Source
from flowzoo.sizes import shown

_CAPTIONS = 3

Lines = list[tuple[str, str]]
_told: set[tuple[tuple[str, str], ...]] = set()


@runtime_checkable
class Telling(Protocol):
    """A source that has more to say than what every source must know."""

    def about(self) -> Lines:
        """Pairs of a word and a text."""


def overview(train: Source, val: Source) -> Lines:
    """Pairs of a word and a text."""
    n = len(train)
    examples = (train.captions((2 * k + 1) * n // (2 * _CAPTIONS))[0] for k in range(_CAPTIONS))
    lines = [("images", f"{n:,} to train on, {len(val):,} held out, {shown(train.size)} pixels")]
    lines.append(("captions", "\n".join(dict.fromkeys(examples))))
    lines += train.about() if isinstance(train, Telling) else []
    held_out = val.about() if isinstance(val, Telling) else []
    return lines + [(f"held out: {word}", text) for word, text in held_out]


def tell(train: Source, val: Source, console: Console, more: Sequence[tuple[str, str]] = ()) -> None:
    """Prints the overview, and more pairs of a word and a text, in a box; once a process."""
    lines = [*overview(train, val), *more]
    if tuple(lines) in _told:
        return
    _told.add(tuple(lines))
    table = Table.grid(padding=(0, 2))
    for word, text in lines:
        style = "bold yellow" if word.endswith("warning") else ""
        table.add_row(Text(word, style or "dim"), Text(text, style))
    console.print(Panel(table, title=Text(f"data: {train.name}"), title_align="left", expand=False))
