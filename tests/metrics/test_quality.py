from typing import Any

import pytest
import torch

from flowzoo.metrics.metric import shown_quality
from flowzoo.metrics.quality import retrieval_top1, zero_shot_accuracy


class Perfect:
    """Reads the level off an image and off a caption."""

    def __init__(self, confused: int = 0) -> None:
        self.confused = confused

    def images(self, images: torch.Tensor) -> torch.Tensor:
        level = (images.float().mean((1, 2, 3)) / 25).round().long().clamp(0, 9)
        return torch.eye(10)[torch.where(level < self.confused, 9 - level, level)]

    def text(self, captions: list[str]) -> torch.Tensor:
        return torch.eye(10)[[int(c.split()[-1]) for c in captions]]


def test_perfect_and_imperfect_extractors(numbers: Any) -> None:
    perfect: Any = Perfect()
    assert zero_shot_accuracy(perfect, numbers, batch_size=64) == 1.0
    assert retrieval_top1(perfect, numbers, n=10, groups=5) == 1.0
    confused: Any = Perfect(confused=3)
    assert zero_shot_accuracy(confused, numbers) == pytest.approx(0.7)
    assert retrieval_top1(confused, numbers, n=10, groups=5) == pytest.approx(0.7)


def test_too_few_distinct_captions_are_named(numbers: Any) -> None:
    perfect: Any = Perfect()
    with pytest.raises(ValueError, match="groups of 11 distinct captions"):
        retrieval_top1(perfect, numbers, n=11, groups=1)


def test_a_quality_in_words() -> None:
    known = {"what": "forms found", "value": 0.987, "data": "shapes", "accuracy": {"32 px": 1.0}}
    assert shown_quality(known) == "forms found: 98.7% on shapes"
    assert shown_quality({"r": 0.9, "on": "people"}) == "r 0.9, on people"
