"""From trained runs to rows of results: every setting of the protocol that has no row yet is sampled, scored, written.

V runs of one backbone go together, V >= 1: all of them, raw and EMA, are sampled from the same noise and prompts.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from flowzoo.job import Evaluation, Job, Setting, Stack
from flowzoo.judge import Judge, Sampler, Scores
from flowzoo.picture import save_grid
from flowzoo.runs.rows import rows_wanted
from flowzoo.runs.store import data_of
from flowzoo.training.checkpoint import BEST, read_row, step_of


@dataclass(frozen=True)
class Place:
    """Where a row belongs: a sampler setting with one set of weights."""

    weights: str
    setting: Setting


def places_of(evaluation: Evaluation) -> list[Place]:
    """Those that a run has rows for."""
    return [Place(*place) for place in rows_wanted(evaluation.weights, evaluation.settings)]


class Scoring:
    """The rows of one run."""

    def __init__(self, job: Job, judge: Judge) -> None:
        self.job, self.run, self.judge, self.as_trained = job, job.run, judge, job.as_trained

    def row(self, place: Place, step: int, **numbers: Any) -> dict[str, Any]:
        """A row of results (docs/design.md has the columns); `numbers` are the cells that the samples decide."""
        job, setting = self.job, place.setting
        solver = self.judge.evaluation.solver_of(setting)
        return {
            "run": self.run.path.name,
            "variant": job.variant,
            "dataset": job.dataset or job.val.name,
            "backbone": job.backbone_label,
            "seed": job.seed,
            "step": step,
            "weights": place.weights,
            "rule": solver.name,
            "grid": solver.grid.name,
            "shift": solver.shift,
            "steps": setting.steps,
            "guidance": setting.guidance,
            "n_samples": self.judge.count,
            "protocol": self.judge.protocol,
            "data": (data_of(self.run.path) or "")[:8],
            **numbers,
        }

    def missing(self, checkpoint: Path) -> list[Place]:
        """The places without a row of this checkpoint, protocol and solver."""
        keys = ("step", "weights", "steps", "guidance", "rule", "grid", "shift", "protocol")
        have = {tuple(str(row[key]) for key in keys) for row in self.run.rows()}
        step = step_of(checkpoint)
        rows = ((p, self.row(p, 0 if p.weights == "init" else step)) for p in places_of(self.judge.evaluation))
        return [p for p, row in rows if tuple(str(row[key]) for key in keys) not in have]

    def diverged(self, step: int) -> None:
        """Rows without scores, so that the ranking knows in which settings the variant should have been."""
        places, nothing = places_of(self.judge.evaluation), dict.fromkeys(self.judge.columns)
        self.run.write_rows([self.row(place, step, **nothing, status="diverged") for place in places])

    def write(self, place: Place, step: int, scores: Scores, seconds: float) -> dict[str, Any]:
        """Keeps the images and the row of one setting; returns the row."""
        self._save_grid(place, scores.images)
        self.run.add_json("extractor.json", self.judge.protocol, self.judge.about())
        row = self.row(
            place,
            step,
            nfe=scores.nfe,
            **scores.numbers,
            path_length=scores.path_length,
            seconds=round(seconds, 3),
            status="done",
        )
        self.run.write_rows([row])
        return row

    def _save_grid(self, place: Place, images: Tensor) -> None:
        """samples/<place>.png; that with the most steps times guidance, which looks best, is samples/grid.png too.

        Under another solver or protocol than the run was trained with the names say which, and grid.png stays.
        """
        folder, judge = self.run.path / "samples", self.judge
        evaluation = judge.evaluation
        folder.mkdir(exist_ok=True)
        name = f"{place.weights}_{place.setting.steps}_steps_guidance_{place.setting.guidance:g}"
        if place.setting.grid:
            name += f"_{place.setting.grid}"
        if not self.as_trained:
            solver = evaluation.solver_of(place.setting)
            name += f"_{solver.name}_{solver.grid.name}_shift_{solver.shift:g}_{judge.protocol}"
        save_grid(folder / f"{name}.png", images)
        first = evaluation.weights[0]
        shown = max(places_of(evaluation), key=lambda p: (p.weights == first, p.setting.steps * p.setting.guidance))
        if place == shown and self.as_trained:
            save_grid(folder / "grid.png", images)
            (folder / "prompts.txt").write_text("\n".join(judge.prompts[: len(images)]) + "\n")


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
            _say_span(progress.console, written[-len(some) :], list(judge.columns), setting)
    if len(runs) == 1:
        heads = ("weights", "steps", "guidance", *(["grid"] if any(p.setting.grid for p in todo[pairs[0][0]]) else []))
        _say_table(progress.console, title, written, heads, list(judge.columns))


def _row(scoring: Scoring, stack: Stack, checkpoint: str, weights: str) -> tuple[Tensor, int]:
    """A run's weights [P] and their step; `init` is the network as training found it."""
    network = stack.network
    if weights == "init":
        row, step = network.row(scoring.job.model.backbone.state_dict()), 0
    else:
        row, step = read_row(scoring.run.path / "checkpoints" / checkpoint, network, weights)
    return row.to(torch.promote_types(network.flat.dtype, torch.float32)), step


def _say_span(console: Console, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], place: Setting) -> None:
    """Of all that were scored together, or of one of a stack that is scored one after another."""
    told = []
    for name in columns:
        if len(rows) == 1:
            told.append(f"{name} {_shown(rows[0][name])}")
        elif values := [row[name] for row in rows if row[name] is not None]:
            told.append(f"{name} {_shown(min(values))} to {_shown(max(values))}")
    seconds = sum(row["seconds"] for row in rows) / len(rows)
    setting = f"{place.steps} steps, guidance {place.guidance:g}" + (f", grid {place.grid}" if place.grid else "")
    whose = f"{rows[0]['run']}, {rows[0]['weights']}" if len(rows) == 1 else f"{len(rows)} sets of weights"
    each = "" if len(rows) == 1 else " each"
    console.print(f"{whose}, {setting}: {', '.join(told)}, {seconds:.2f} s{each}", highlight=False, soft_wrap=True)


def _say_table(
    console: Console, title: str, rows: Sequence[Mapping[str, Any]], setting: Sequence[str], columns: Sequence[str]
) -> None:
    """A line a setting; where that is too wide a line a metric, with as many settings beside one another as fit."""
    heads = (*setting, *columns, "seconds")
    lines = []
    for row in rows:
        numbers = [_shown(row[name]) for name in columns]
        place = (f"{row[name]:g}" if name == "guidance" else str(row[name]) for name in setting)
        lines.append([*place, *numbers, f"{row['seconds']:.1f}"])
    table = Table(*heads, title=title)
    for line in lines:
        table.add_row(*line)
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
        console.print(table)
        return
    edge, cell = (max(map(len, some)) + 3 for some in (heads, [x for line in lines for x in line]))
    at_once = max(1, (console.width - edge - 1) // cell)
    for first in range(0, len(lines), at_once):
        some = lines[first : first + at_once]
        table = Table(heads[0], *(line[0] for line in some), title=title)
        for i, head in enumerate(heads[1:], 1):
            table.add_row(head, *(line[i] for line in some), end_section=i == len(setting) - 1)
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
