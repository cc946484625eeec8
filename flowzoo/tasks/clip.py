"""The task behind the extractor: a small CLIP learns which caption belongs to which image."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.metrics.clip_data import Augment, CaptionedSet
from flowzoo.randomness import generator
from flowzoo.tasks.task import Network

LARGEST_SCALE = 100.0  # of the cosines (Radford et al. 2021, sec. 2.5)


class Contrastive(nn.Module):
    """A CLIP with its loss; what is trained are the CLIP's weights."""

    mean: Tensor  # [3, 1, 1] of the pixels in 0..1, as the next
    std: Tensor

    def __init__(self, clip: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.clip = clip
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, tokens: Tensor, captions: Tensor) -> Tensor:
        """The loss [] of images [n, 3, S, S] in 0..1, tokens int64 [n, L] and the captions' numbers [n]."""
        image = self.clip.encode_image((images - self.mean) / self.std)  # type: ignore[operator]
        text = self.clip.encode_text(tokens)  # type: ignore[operator]
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        log_scale: Any = self.clip.logit_scale
        return contrastive_loss(image, text, log_scale.float().clamp(max=math.log(LARGEST_SCALE)).exp(), captions)


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, captions: Tensor) -> Tensor:
    """-log probability that retrieval finds a hit, averaged over both directions (Radford et al. 2021, fig. 3).

    Deviation: every pair whose captions are equal is a hit, and its probabilities are added up, so equal captions never
    push each other's images away; with all captions distinct it is CLIP's loss.

    Args:
        image, text: unit vectors [n, dim]. scale: factor on the cosines, []. captions: numbers that are equal where the
            captions are, [n].
    """
    logits = scale * image @ text.T
    misses = captions[:, None] != captions[None, :]
    hits = logits.masked_fill(misses, -math.inf)
    both = (logits.logsumexp(dim) - hits.logsumexp(dim) for dim in (0, 1))
    return torch.stack([direction.mean() for direction in both]).mean()


class ClipTask:
    """One CLIP, V = 1. The batch of a step, its augmentation included, is a function of (seed, step)."""

    compiled = False
    waited = 0.0  # all data are in memory

    def __init__(self, data: CaptionedSet, held_out: CaptionedSet, augment: Augment, *, batch_size: int, seed: int):
        """Validation takes each image of `held_out` once, with its first caption."""
        self.data, self.held_out, self.augment = data, held_out, augment
        self.batch_size, self.seed = batch_size, seed

    def begin(self, device: torch.device, rank: int, world: int) -> None:
        """ValueError for several processes: an image is compared with all captions of its batch."""
        if world > 1:
            raise ValueError(f"a CLIP is trained by one process, not by {world}")
        self.device = device
        self.data, self.held_out = self.data.to(device), self.held_out.to(device)

    def batches(self, step: int) -> Iterator[tuple[Tensor, ...]]:
        """Images in 0..1, tokens and caption numbers."""
        for at in count(step):
            gen = generator(self.seed, at, "train_clip", self.device)
            images, captions = self.data.batch(self.batch_size, gen)
            yield self.augment(images, gen), self.data.tokens[captions].long(), captions

    def inputs(self, batch: tuple[Tensor, ...], step: int) -> tuple[Tensor, ...]:
        return batch

    def parts(self, inputs: tuple[Any, ...], n: int) -> Iterator[tuple[Any, ...]]:
        """ValueError: each image is compared with all captions of the batch."""
        raise ValueError(f"a CLIP's batch cannot be cut into {n} parts; allowed is the whole")

    def losses(self, network: StackedBackbone, weights: Mapping[str, Tensor], *inputs: Any) -> Tensor:
        """[1]"""
        return network.call(weights, *inputs)

    def validate(self, network: Network) -> Tensor:
        """[1, batches] of whole batches as they are trained on; of one that is smaller where there are too few."""
        held_out = self.held_out
        size = min(self.batch_size, len(held_out.images))
        losses = []
        with torch.no_grad():
            for first in range(0, len(held_out.images) - size + 1, size):
                captions = held_out.choices[first : first + size, 0]
                images = held_out.images[first : first + size].float() / 255
                losses.append(network(images, held_out.tokens[captions].long(), captions).float())
        return torch.stack(losses, 1)
