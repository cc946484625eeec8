"""How metrics answer to damage of known strength: a judge that does not order these orders no variants either."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowzoo.data.source import Source
from flowzoo.metrics.extractor import FeatureExtractor
from flowzoo.metrics.metric import CPU, Compared, HeldOut, Made, Metric
from flowzoo.metrics.sliced import filtered
from flowzoo.progress import track
from flowzoo.randomness import generator

BATCH = 250  # samples at once


@dataclass(frozen=True)
class Samples:
    """What stands for a model's samples: uint8 [n, C, H, W] and the prompt of each."""

    images: Tensor
    prompts: Sequence[str]


def blurred(samples: Samples, sigma: float) -> Samples:
    """By a Gaussian of `sigma` times a 32nd of the shorter edge."""
    x = samples.images.float()
    sigma = sigma * min(x.shape[-2:]) / 32
    radius = min(int(3 * sigma) + 1, min(x.shape[-2:]) - 1)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    return Samples(_uint8(filtered(x, taps / taps.sum())), samples.prompts)


def noisy(samples: Samples, deviation: float) -> Samples:
    """With normal noise, in units of 0..255."""
    x = samples.images.float()
    noise = torch.randn(x.shape, generator=generator(0, 0, "ladder of noise"))
    return Samples(_uint8(x + deviation * noise), samples.prompts)


def mixed(samples: Samples, share: float) -> Samples:
    """Each image blended with another one, which has this share."""
    x = samples.images.float()
    return Samples(_uint8((1 - share) * x + share * x.roll(1, 0)), samples.prompts)


def repeated(samples: Samples, share: float) -> Samples:
    """This share of the images gives way to repetitions of the others, as where a model has lost its variety."""
    n = len(samples.images)
    kept = max(1, round(n * (1 - share)))
    again = torch.arange(n) % kept
    return Samples(samples.images[again], [samples.prompts[i] for i in again.tolist()])


def shuffled(samples: Samples, share: float) -> Samples:
    """This share of the images has the prompt of another one."""
    n = len(samples.images)
    struck = np.random.RandomState(0).permutation(n)[: round(share * n)]
    prompts = list(samples.prompts)
    for i, j in zip(struck, np.roll(struck, 1), strict=True):
        prompts[i] = samples.prompts[j]
    return Samples(samples.images, prompts)


def _uint8(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


# By kind, what is done and how strongly, from less to more.
LADDERS: Mapping[str, tuple[Callable[[Samples, float], Samples], Sequence[float]]] = {
    "blur": (blurred, (0.5, 1.0, 1.5, 2.0)),
    "noise": (noisy, (4.0, 8.0, 16.0, 32.0)),
    "mixed": (mixed, (0.05, 0.1, 0.2, 0.4)),
    "repeated": (repeated, (0.5, 0.8, 0.9, 0.95)),
    "prompts": (shuffled, (0.1, 0.25, 0.5, 1.0)),
}


class Half:
    """The even or the odd images of a source, at most `n` of them, evenly spaced: folders are sorted by class."""

    def __init__(self, source: Source, odd: bool, n: int) -> None:
        self.source, self.offset = source, int(odd)
        self.name, self.size, self.channels = source.name, source.size, source.channels
        self._count = min(n, len(source) // 2)
        self.fingerprint = f"{source.fingerprint}, {'odd' if odd else 'even'} {self._count}"

    def __len__(self) -> int:
        return self._count

    def _place(self, index: int) -> int:
        return 2 * (index * (len(self.source) // 2) // self._count) + self.offset

    def images(self, indices: Sequence[int]) -> np.ndarray:
        return self.source.images([self._place(i) for i in indices])

    def captions(self, index: int) -> tuple[str, ...]:
        return self.source.captions(self._place(index))

    def prompt(self, index: int) -> str:
        return self.source.prompt(self._place(index))


@dataclass(frozen=True)
class Rung:
    """Scores of the images with damage of one kind and strength; strength 0 is the images as they are."""

    kind: str
    strength: float
    scores: Mapping[str, float | None]


def climb(
    metrics: Sequence[Metric], extractor: FeatureExtractor, source: Source, n: int, device: torch.device = CPU
) -> tuple[list[Rung], list[str]]:
    """Scores of one half of held-out images, damaged or not, against the other half; and what the metrics say first.

    Metrics with prompts of their own are not asked. `n` is the number of images of a half at most.
    """
    samples_of, reference = Half(source, False, n), Half(source, True, n)
    indices = list(range(len(samples_of)))
    clean = Samples(torch.from_numpy(samples_of.images(indices)), [samples_of.prompt(i) for i in indices])
    asked = [metric for metric in metrics if metric.prompts is None]
    held_out = HeldOut(reference, len(reference), extractor, extractor.identity, len(samples_of), None, None, device)
    said = [told for metric in asked if isinstance(metric, Compared) and (told := metric.begin(held_out))]
    unique = sorted(set(clean.prompts))
    text = dict(zip(unique, extractor.text(unique), strict=True))
    steps = [("as they are", 0.0)] + [(kind, x) for kind, (_, strengths) in LADDERS.items() for x in strengths]
    rungs = []
    for kind, strength in track(steps, "ladders"):
        samples = LADDERS[kind][0](clean, strength) if strength else clean
        rungs.append(Rung(kind, strength, _scores(asked, extractor, text, samples, device)))
    return rungs, said


def _scores(
    metrics: Sequence[Metric],
    extractor: FeatureExtractor,
    text: Mapping[str, Tensor],
    samples: Samples,
    device: torch.device,
) -> dict[str, float | None]:
    statistics = [metric.statistics() for metric in metrics]
    for first in range(0, len(samples.images), BATCH):
        images, prompts = samples.images[first : first + BATCH], samples.prompts[first : first + BATCH]
        images = images.to(device)
        told = torch.stack([text[prompt] for prompt in prompts])
        made = Made(images[None], extractor.images(images)[None], prompts, told)
        for one in statistics:
            one.update(made)
    return {name: value for one in statistics for name, value in one.values()[0].items()}


def order(rungs: Sequence[Rung], kind: str, column: str, direction: str) -> float | None:
    """The share of neighbouring rungs of a ladder of which the stronger damage scores worse; 1 is a perfect order.

    The clean images are its first rung. None where a score cannot be said, or does not look at what was damaged.
    """
    own = [rung.scores.get(column) for rung in rungs if rung.kind in (kind, "as they are")]
    if any(x is None for x in own) or len(set(own)) == 1:
        return None
    sign = 1 if direction == "min" else -1
    pairs: list[tuple[Any, Any]] = list(pairwise(own))
    return sum(sign * (b - a) > 0 for a, b in pairs) / len(pairs)
