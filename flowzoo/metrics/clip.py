"""CLIP score: how well an image fits its caption, on the paper's scale of 0.2 to 0.26."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.metrics.metric import Made


def clip_score(image: Tensor, text: Tensor) -> Tensor:
    """Raw cosine of each pair of embeddings, [n, D] and [n, D] to [n], float64: no factor 100, not clamped at 0.

    Hessel et al. 2021, eq. 1 without w and max; the paper reports its mean (sec. 5.1).
    """
    if image.shape != text.shape:
        raise ValueError(f"images and captions come in pairs, got {list(image.shape)} and {list(text.shape)}")
    return F.cosine_similarity(image.double(), text.double(), dim=-1)


class ClipScore:
    """The mean CLIP score of samples and the prompts that they were made for, `clip`."""

    columns: Mapping[str, Literal["min", "max"]] = {"clip": "max"}
    prompts: Sequence[str] | None = None
    identity: Mapping[str, Any] = {"name": "clip"}
    quality: Mapping[str, Any] = {}

    def statistics(self) -> "Cosines":
        return Cosines()


class Cosines:
    def __init__(self) -> None:
        self._each: list[Tensor] = []  # [M, n]

    def update(self, made: Made) -> None:
        told = made.prompt_features.expand_as(made.features)
        each = clip_score(made.features.flatten(0, 1), told.flatten(0, 1))
        self._each.append(each.reshape(made.features.shape[:2]))

    def values(self) -> list[dict[str, float | None]]:
        return [{"clip": mean} for mean in torch.cat(self._each, 1).mean(1).tolist()]
