"""How good an extractor is on held-out data: a score is worth no more than the network behind it."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from flowzoo.metrics.extractor import FeatureExtractor

if TYPE_CHECKING:
    from flowzoo.data.source import Source


def _images(source: "Source", indices: list[int]) -> torch.Tensor:
    return torch.from_numpy(source.images(indices))


def detailed(captions: tuple[str, ...]) -> str:
    """The most detailed of an image's captions: the longest."""
    return max(captions, key=len)


def retrieval_top1(extractor: FeatureExtractor, source: "Source", n: int = 256, groups: int = 8) -> float:
    """Share of images whose own detailed caption is the nearest of `n` distinct ones, over disjoint groups."""
    hits, start = 0, 0
    for group in range(groups):
        chosen: dict[str, int] = {}
        while len(chosen) < n:
            if start == len(source):
                raise ValueError(
                    f"{source.name} has {len(source)} images, too few for {groups} groups of {n} distinct captions"
                    f" (ran out in group {group + 1})"
                )
            chosen.setdefault(detailed(source.captions(start)), start)
            start += 1
        image = F.normalize(extractor.images(_images(source, list(chosen.values()))), dim=-1)
        text = F.normalize(extractor.text(list(chosen)), dim=-1)
        hits += int((image @ text.T).argmax(1).eq(torch.arange(n, device=image.device)).sum())
    return hits / (n * groups)


def zero_shot_accuracy(extractor: FeatureExtractor, source: "Source", batch_size: int = 1000) -> float:
    """Share of images of `source` whose own prompt is the nearest of all its distinct prompts (one a class)."""
    prompts = [source.prompt(i) for i in range(len(source))]
    classes = {prompt: k for k, prompt in enumerate(sorted(set(prompts)))}
    text = F.normalize(extractor.text(list(classes)), dim=-1)
    hits = 0
    for first in range(0, len(source), batch_size):
        indices = list(range(first, min(first + batch_size, len(source))))
        nearest = (extractor.images(_images(source, indices)) @ text.T).argmax(1)
        hits += int(nearest.cpu().eq(torch.tensor([classes[prompts[i]] for i in indices])).sum())
    return hits / len(source)
