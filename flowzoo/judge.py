"""What samples are worth: V networks are sampled in one setting of the protocol, and the metrics look at the images."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from flowzoo.data.source import shuffled
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.job import Job, Setting, Stack
from flowzoo.metrics.extractor import FeatureExtractor
from flowzoo.metrics.fid import FID
from flowzoo.metrics.metric import Compared, HeldOut, Made, Metric, shown_quality
from flowzoo.metrics.protocol import protocol_hash
from flowzoo.sampling.generate import Generator, batches, start_noise

AT_ONCE = 4096  # images whose features are computed at once
ROOM = 16  # times evaluation.batch_size images are made at once, over all members


@dataclass(frozen=True)
class Scores:
    nfe: int
    numbers: dict[str, float | None]  # by metric; None where it cannot be said
    path_length: float
    images: Tensor  # the first few, uint8 [n, C, H, W]


class Asked:
    """Prompts that samples are made for, and the metrics that look at those."""

    def __init__(
        self, prompts: Sequence[str], metrics: Sequence[Metric], text: TextEncoders, extractor: FeatureExtractor
    ):
        self.prompts, self.metrics = prompts, metrics
        self._text, self._extractor = text, extractor

    @cached_property
    def features(self) -> Tensor:
        return self._extractor.text(self.prompts)

    @cached_property
    def encoded(self) -> Text:
        """The prompts' text, kept in half precision on the CPU (paper, Table 7), merged beyond the longest."""
        unique = sorted(set(self.prompts))
        at = {prompt: i for i, prompt in enumerate(unique)}
        encode = self._text.encode
        parts = [encode(unique[i : i + n]).to("cpu", torch.float16) for i, n in batches(len(unique), 500)]
        whole = Text(
            tuple(torch.cat(x) for x in zip(*(p.tokens for p in parts), strict=True)),
            tuple(torch.cat(x) for x in zip(*(p.pooled for p in parts), strict=True)),
        )
        return whole.merged().rows(torch.tensor([at[prompt] for prompt in self.prompts]))


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
        latents = None if model.sees_pixels else model.autoencoder
        held_out = HeldOut(
            val, self.n_reference, self.extractor, self.identity, self.count, job.cache, latents, self.device
        )
        for metric in evaluation.metrics:
            if isinstance(metric, Compared) and (told := metric.begin(held_out)):
                _say(told)
        self.judges = {m.identity["name"]: shown_quality(m.quality) for m in evaluation.metrics if m.quality}
        for name, words in self.judges.items():
            _say(f"{name} is known no better than its judge sees: {words}")
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
            "judges": self.judges,
            "reference": {"fingerprint": self.val.fingerprint, "n": self.n_reference},
            "no_fid": "".join(no_fid),
            "n_samples": self.count,
            "protocol": self.protocol,
        }

    def score(
        self, generator: Generator, setting: Setting, size: int, progress: Callable[[int], object]
    ) -> list[Scores]:
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
    ) -> list[Scores]:
        evaluation, autoencoder, shape = self.evaluation, self.model.autoencoder, self.model.latent_shape
        statistics = [metric.statistics() for metric in asked.metrics]
        lengths: list[Tensor] = []
        shown: list[Tensor] = []
        for first, n in batches(len(asked.prompts), size):
            noise = start_noise(evaluation.seed, first, n, shape)
            prompt = asked.encoded.rows(slice(first, first + n)).to(self.device, torch.float32)
            null = self.model.text.null(n).merged()
            generated = generator(noise, prompt, null, setting.steps, setting.guidance)
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
        self._generator.solver = judge.evaluation.solver_of(setting)
        size = judge.evaluation.batch_size
        size = min(size, max(1, ROOM * size // len(members)))
        return judge.score(self._generator, setting, size, advance)


@cache
def _say(words: str) -> None:
    """Once a process, whatever the number of its runs."""
    print(words, file=sys.stderr)
