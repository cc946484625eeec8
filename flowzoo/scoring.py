"""Samples a trained run in every sampler setting of the protocol, scores it, and writes one row a setting."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flowzoo.autoencoders.pixels import Pixels
from flowzoo.data.source import shuffled
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.job import Evaluation, Job, Setting
from flowzoo.metrics.extractor import ClipExtractor
from flowzoo.metrics.fid import FID
from flowzoo.metrics.metric import Compared, HeldOut, Made, Metric
from flowzoo.metrics.protocol import protocol_hash
from flowzoo.runs.store import data_of
from flowzoo.sampling.generate import Generator, batches, start_noise
from flowzoo.training.checkpoint import step_of

COLUMNS = 8  # of the sample grid
AT_ONCE = 4096  # images whose features are computed at once


@dataclass(frozen=True)
class Place:
    """Where a row belongs: a sampler setting with one set of weights."""

    weights: str
    setting: Setting


@cache
def _say(words: str) -> None:
    """Once a process, whatever the number of its runs."""
    print(words, file=sys.stderr)


def places_of(evaluation: Evaluation) -> list[Place]:
    """Every setting with every set of weights; the untrained network, a baseline, in the shortest setting alone."""
    settings = evaluation.settings
    return [
        Place(weights, setting)
        for weights in evaluation.weights
        for setting in ([min(settings)] if weights == "init" else settings)
    ]


class Asked:
    """Prompts that samples are made for, and the metrics that look at those."""

    def __init__(self, prompts: Sequence[str], metrics: Sequence[Metric], text: TextEncoders, extractor: ClipExtractor):
        self.prompts, self.metrics = prompts, metrics
        self._text, self._extractor = text, extractor

    @cached_property
    def features(self) -> Tensor:
        return self._extractor.text(self.prompts)

    @cached_property
    def encoded(self) -> Text:
        """The prompts' text, kept in half precision on the CPU (paper, Table 7)."""
        unique = sorted(set(self.prompts))
        at = {prompt: i for i, prompt in enumerate(unique)}
        encode = self._text.encode
        parts = [encode(unique[i : i + n]).to("cpu", torch.float16) for i, n in batches(len(unique), 500)]
        whole = Text(
            tuple(torch.cat(x) for x in zip(*(p.tokens for p in parts), strict=True)),
            tuple(torch.cat(x) for x in zip(*(p.pooled for p in parts), strict=True)),
        )
        return whole.rows(torch.tensor([at[prompt] for prompt in self.prompts]))


class Judge:
    """What is the same for all settings of all runs that are scored together: prompts, metrics, protocol."""

    def __init__(self, job: Job) -> None:
        """As any of the jobs says."""
        evaluation, val, model = job.evaluation, job.val, job.model
        self.evaluation, self.model, self.val, self.loop = evaluation, model, val, job.loop
        self.device = job.loop.device
        self.move()
        self.extractor = evaluation.extractor.to(self.device)
        self.count, self.n_reference = evaluation.samples, min(len(val), evaluation.reference)
        # all that decides features: what the extractor says of itself, and the class and parameters that made it
        self.identity = {**self.extractor.identity, "made_by": evaluation.made_by.get("extractor", {})}
        exact = isinstance(model.autoencoder.autoencoder, Pixels)
        latents = None if exact else model.autoencoder
        held_out = HeldOut(val, self.n_reference, self.extractor, self.identity, self.count, job.cache, latents)
        for metric in evaluation.metrics:
            if isinstance(metric, Compared) and (told := metric.begin(held_out)):
                _say(told)
        seen = self.extractor.quality.get("data")
        if seen and seen != val.name:
            _say(
                f"{self.extractor.identity['name']}, the network behind the scores, was trained on {seen} and has not "
                f"seen images like {val.name}: its scores compare variants poorly (README, Your own images)"
            )
        self.prompts = [val.prompt(i) for i in shuffled(val, self.count)]
        common = [metric for metric in evaluation.metrics if metric.prompts is None]
        # the protocol's first: their samples are shown, and their paths measured
        self.asked = [Asked(self.prompts, common, model.text, self.extractor)]
        for metric in evaluation.metrics:
            if metric.prompts is not None:
                self.asked.append(Asked(metric.prompts, [metric], model.text, self.extractor))
        self.protocol = protocol_hash(
            extractor=self.identity,
            autoencoder=evaluation.made_by.get("autoencoder", {}),
            metrics=[metric.identity for metric in evaluation.metrics],
            n_samples=self.count,
            reference=val.fingerprint,
            n_reference=self.n_reference,
            prompts=self.prompts,
            seed=evaluation.seed,
        )

    @property
    def columns(self) -> dict[str, str]:
        """Of all metrics, with the direction that is better."""
        return {column: way for metric in self.evaluation.metrics for column, way in metric.columns.items()}

    @property
    def total(self) -> int:
        """Samples of a setting."""
        return sum(len(asked.prompts) for asked in self.asked)

    def move(self) -> None:
        """Brings what training may have left elsewhere to the device."""
        self.model.autoencoder.to(self.device)
        self.model.text.to(self.device)

    def about(self) -> dict[str, Any]:
        """What extractor.json says."""
        no_fid = [metric.none for metric in self.evaluation.metrics if isinstance(metric, FID)]
        return {
            "identity": self.identity,
            "quality": self.extractor.quality,
            "metrics": self.columns,
            "metric_quality": {
                metric.identity["name"]: metric.quality for metric in self.evaluation.metrics if metric.quality
            },
            "reference": {"fingerprint": self.val.fingerprint, "n": self.n_reference},
            "no_fid": "".join(no_fid),
            "n_samples": self.count,
            "protocol": self.protocol,
        }

    def score(
        self, generator: Generator, setting: Setting, size: int, progress: Callable[[int], object]
    ) -> list["Scores"]:
        """Of each of the generator's M members: all samples of one setting, `size` of each member at once.

        The images are never kept: metrics see them batch by batch.
        """
        first, *others = [self._score(asked, generator, setting, size, progress) for asked in self.asked]
        for other in others:
            for one, more in zip(first, other, strict=True):
                one.numbers.update(more.numbers)
        return first

    def _score(
        self, asked: Asked, generator: Generator, setting: Setting, size: int, progress: Callable[[int], object]
    ) -> list["Scores"]:
        evaluation, autoencoder, shape = self.evaluation, self.model.autoencoder, self.model.latent_shape
        statistics = [metric.statistics() for metric in asked.metrics]
        lengths: list[Tensor] = []
        shown: list[Tensor] = []
        for first, n in batches(len(asked.prompts), size):
            noise = start_noise(evaluation.seed, first, n, shape)
            prompt = asked.encoded.rows(slice(first, first + n)).to(self.device, torch.float32)
            generated = generator(noise, prompt, self.model.text.null(n), setting.steps, setting.guidance)
            lead = generated.path_length.reshape(-1, n).shape  # [M, n]
            latents = generated.latents.reshape(-1, *shape)
            images = autoencoder.decode(latents)
            parts = [self.extractor.images(images[i : i + k]) for i, k in batches(len(images), AT_ONCE)]
            # uint8 would turn an overflow into a black image and score it
            finite = latents.isfinite().flatten(1).all(1)
            features = torch.cat(parts).masked_fill(~finite[:, None], math.nan).reshape(*lead, -1)
            images = images.reshape(*lead, *images.shape[1:])
            some = slice(first, first + n)
            made = Made(images, features, asked.prompts[some], asked.features[some])
            for one in statistics:
                one.update(made)
            lengths.append(generated.path_length.reshape(lead).double())
            if first < evaluation.grid:
                shown.append(images[:, : evaluation.grid - first].cpu())
            progress(lead.numel())
        nfe, length = generated.nfe.reshape(-1), torch.cat(lengths, 1).mean(1)
        numbers: list[dict[str, float | None]] = [{} for _ in length]
        for one in statistics:
            for own, values in zip(numbers, one.values(), strict=True):
                own.update(values)
        return [
            Scores(int(nfe[i]), numbers[i], float(length[i]), images) for i, images in enumerate(torch.cat(shown, 1))
        ]


@dataclass(frozen=True)
class Scores:
    nfe: int
    numbers: dict[str, float | None]  # by metric; None where it cannot be said
    path_length: float
    images: Tensor  # the first few, uint8 [n, C, H, W]


class Scoring:
    """The rows of one run."""

    def __init__(self, job: Job, judge: Judge) -> None:
        self.job, self.run, self.judge, self.as_trained = job, job.run, judge, job.as_trained

    def row(self, place: Place, step: int, **numbers: Any) -> dict[str, Any]:
        """A row of results (docs/design.md has the columns); `numbers` are the cells that the samples decide."""
        job, solver, setting = self.job, self.judge.evaluation.solver, place.setting
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
        if not self.as_trained:
            solver = evaluation.solver
            name += f"_{solver.name}_{solver.grid.name}_shift_{solver.shift:g}_{judge.protocol}"
        save_grid(folder / f"{name}.png", images)
        first = evaluation.weights[0]
        shown = max(places_of(evaluation), key=lambda p: (p.weights == first, p.setting.steps * p.setting.guidance))
        if place == shown and self.as_trained:
            save_grid(folder / "grid.png", images)
            (folder / "prompts.txt").write_text("\n".join(judge.prompts[: len(images)]) + "\n")


def save_grid(path: Path, images: Tensor, columns: int = COLUMNS, gap: int = 2) -> None:
    """uint8 images [n, 3, H, W] as one PNG of rows of `columns`, on white."""
    n, _, h, w = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    canvas = torch.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        canvas[top : top + h, left : left + w] = image.permute(1, 2, 0)
    part = path.with_name(path.name + ".part")
    Image.fromarray(canvas.numpy()).save(part, format="PNG")
    part.replace(path)
