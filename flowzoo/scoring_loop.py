"""Scores V runs of one backbone, V >= 1: all of them, raw and EMA, are sampled from the same noise and prompts."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.job import Setting, Stack
from flowzoo.sampling.generate import Generator
from flowzoo.scoring import Judge, Place, Scores, Scoring
from flowzoo.training.checkpoint import BEST, read_row

ROOM = 16  # times evaluation.batch_size images are made at once, over all members


class Sampler:
    """Samples and scores sets of weights of one kind of network: as many at once as pays on the device."""

    def __init__(self, judge: Judge, stack: Stack, rows: Tensor, places: Sequence[int]) -> None:
        """`rows` [M, P], each with the formulation of the job at its place in the stack."""
        self.judge, self.stack, self.places = judge, stack, list(places)
        device = judge.device
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            self._rows = stack.network.holding(rows.to(device)).working().detach()  # as the generator would, once
        # On a CPU torch attends one variant after another, and cores have no idle time that several could fill.
        self.at_once = len(rows) if device.type == "cuda" else 1
        self._members: list[int] = []
        self._generator: Generator

    def score(self, members: Sequence[int], setting: Setting, advance: Any) -> list[Scores]:
        """Of these rows, at most `at_once`, in one setting. Told how many samples are made, `advance` shows it."""
        judge = self.judge
        if list(members) != self._members:
            self._members = list(members)
            every = self._members == list(range(len(self._rows)))
            network = self.stack.network.holding(self._rows if every else self._rows[self._members])
            network.to(judge.device).requires_grad_(False)
            formulation = StackedFormulation([self.stack.formulation.formulations[self.places[m]] for m in members])
            self._generator = Generator(
                network, formulation, judge.evaluation.solver, judge.device, judge.loop.compile_mode
            )
        size = judge.evaluation.batch_size
        size = min(size, max(1, ROOM * size // len(members)))
        return judge.score(self._generator, setting, size, advance)


def score(scorings: Mapping[int, Scoring], stack: Stack, checkpoint: str, progress: Progress) -> None:
    """Writes every missing row of the runs' checkpoints of this name; of each the same as if it were scored alone.

    `scorings` are keyed by the runs' places in the stack. Raises as `read_row`.
    """
    todo = {i: scoring.missing(scoring.run.path / "checkpoints" / checkpoint) for i, scoring in scorings.items()}
    pairs = list(dict.fromkeys((i, place.weights) for i, places in todo.items() for place in places))
    for scoring in scorings.values():
        scoring.as_trained &= checkpoint == BEST
    if not pairs:
        for scoring in scorings.values():
            progress.console.print(f"{scoring.run.path}: every setting has its row", highlight=False, soft_wrap=True)
        return
    read = [_row(scorings[i], stack, checkpoint, weights) for i, weights in pairs]
    steps = {pair: step for pair, (_, step) in zip(pairs, read, strict=True)}
    judge = scorings[pairs[0][0]].judge
    judge.move()
    sampler = Sampler(judge, stack, torch.stack([row for row, _ in read]), [i for i, _ in pairs])
    del read
    by_setting: dict[Any, list[tuple[int, Place]]] = {}  # as many as pays at once, of one setting
    for i, places in todo.items():
        for place in places:
            apart = (i, place.weights) if sampler.at_once == 1 else ()
            by_setting.setdefault((place.setting, apart), []).append((i, place))
    runs = list(scorings.values())
    title = runs[0].run.path.name if len(runs) == 1 else f"{len(runs)} runs"
    task = progress.add_task(f"sampling {title}", total=judge.total * sum(map(len, by_setting.values())))
    written: list[dict[str, Any]] = []
    for (setting, _), some in by_setting.items():
        members = [pairs.index((i, place.weights)) for i, place in some]
        start = time.perf_counter()
        scores = sampler.score(members, setting, lambda n: progress.advance(task, n))
        seconds = (time.perf_counter() - start) / len(some)
        for (i, place), one in zip(some, scores, strict=True):
            written.append(scorings[i].write(place, steps[i, place.weights], one, seconds))
        if len(runs) > 1:
            _say_span(progress.console, written[-len(some) :], list(judge.columns))
    if len(runs) == 1:
        _say_table(progress.console, title, written, list(judge.columns))


def _row(scoring: Scoring, stack: Stack, checkpoint: str, weights: str) -> tuple[Tensor, int]:
    """A run's weights [P] and their step; `init` is the network as training found it."""
    network = stack.network
    if weights == "init":
        row, step = network.row(scoring.job.model.backbone.state_dict()), 0
    else:
        row, step = read_row(scoring.run.path / "checkpoints" / checkpoint, network, weights)
    return row.to(torch.promote_types(network.flat.dtype, torch.float32)), step


def _say_span(console: Console, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    told = []
    for name in columns:
        if values := [row[name] for row in rows if row[name] is not None]:
            told.append(f"{name} {_shown(min(values))} to {_shown(max(values))}")
    seconds = sum(row["seconds"] for row in rows) / len(rows)
    setting = f"{rows[0]['steps']} steps, guidance {rows[0]['guidance']:g}"
    console.print(f"{len(rows)} sets of weights, {setting}: {', '.join(told)}, {seconds:.2f} s each", highlight=False)


def _say_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A line a setting; where that is too wide a line a metric, with as many settings beside one another as fit."""
    heads = ("weights", "steps", "guidance", *columns, "seconds")
    lines = []
    for row in rows:
        numbers = [_shown(row[name]) for name in columns]
        lines.append([row["weights"], str(row["steps"]), f"{row['guidance']:g}", *numbers, f"{row['seconds']:.1f}"])
    table = Table(*heads, title=title)
    for line in lines:
        table.add_row(*line)
    if console.measure(table).maximum <= console.width:
        console.print(table)
        return
    edge, cell = (max(map(len, some)) + 3 for some in (heads, [x for line in lines for x in line]))
    at_once = max(1, (console.width - edge - 1) // cell)
    for first in range(0, len(lines), at_once):
        some = lines[first : first + at_once]
        table = Table(heads[0], *(line[0] for line in some), title=title)
        for i, head in enumerate(heads[1:], 1):
            table.add_row(head, *(line[i] for line in some), end_section=i == 2)
        console.print(table)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}" if abs(value) >= 2 else f"{value:.4f}"


def scoring_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
