"""Ladders of damage, and how scores climb them."""

from collections import Counter
from typing import Any

import pytest
import torch

from flowzoo.metrics.clip import ClipScore
from flowzoo.metrics.extractor import Extractor
from flowzoo.metrics.fid import FID
from flowzoo.metrics.ladders import LADDERS, Half, Rung, Samples, climb, order
from flowzoo.metrics.sliced import SlicedWasserstein


@pytest.fixture
def samples(numbers: Any) -> Samples:
    return Samples(torch.from_numpy(numbers.images(range(40))), [f"{numbers.prompt(i)}, number {i}" for i in range(40)])


@pytest.mark.parametrize("kind", LADDERS)
def test_damage_keeps_shapes_grows_and_is_the_same_each_time(kind: str, samples: Samples) -> None:
    damage, strengths = LADDERS[kind]
    away = []
    for strength in strengths:
        damaged = damage(samples, strength)
        assert (damaged.images.shape, damaged.images.dtype) == (samples.images.shape, torch.uint8)
        assert len(damaged.prompts) == len(samples.prompts)
        again = damage(samples, strength)
        assert torch.equal(again.images, damaged.images)
        assert again.prompts == damaged.prompts
        error = (damaged.images.float() - samples.images.float()).square().mean()
        moved = sum(a != b for a, b in zip(damaged.prompts, samples.prompts, strict=True))
        away.append(float(error) + moved)
    assert away == sorted(away)
    assert away[0] > 0


def test_what_each_kind_leaves_as_it_is(samples: Samples) -> None:
    flat = Samples(torch.full((2, 3, 32, 32), 77, dtype=torch.uint8), ["a", "b"])
    assert torch.equal(LADDERS["blur"][0](flat, 2.0).images, flat.images)
    assert torch.equal(LADDERS["mixed"][0](flat, 0.4).images, flat.images)
    shuffled = LADDERS["prompts"][0](samples, 1.0)
    assert torch.equal(shuffled.images, samples.images)
    assert Counter(shuffled.prompts) == Counter(samples.prompts)
    assert all(a != b for a, b in zip(shuffled.prompts, samples.prompts, strict=True))
    half = LADDERS["prompts"][0](samples, 0.5)
    assert sum(a != b for a, b in zip(half.prompts, samples.prompts, strict=True)) == 20
    few = LADDERS["repeated"][0](samples, 0.9)
    assert len({image.numpy().tobytes() for image in few.images}) == 4
    assert [samples.prompts.index(p) for p in few.prompts] == [i % 4 for i in range(40)]


def test_halves_share_no_image(numbers: Any) -> None:
    even, odd = Half(numbers, False, 1000), Half(numbers, True, 30)
    assert (len(even), len(odd)) == (100, 30)
    assert (even.images([3]) == numbers.images([6])).all()
    assert (odd.images([3, 29]) == numbers.images([21, 193])).all()
    assert even.prompt(3) == numbers.prompt(6)
    assert odd.captions(3) == numbers.captions(21)
    assert len({even.fingerprint, odd.fingerprint, Half(numbers, True, 31).fingerprint}) == 3


@pytest.mark.filterwarnings("ignore:.*few for FID")
def test_scores_climb(numbers: Any) -> None:
    """Blends are worse the stronger they are, for scores that look at images; prompts count for CLIP scores alone."""
    rungs, said = climb([FID(), SlicedWasserstein(), ClipScore()], Extractor(), numbers, 80)
    assert any("80 images are few" in told for told in said)
    assert [(r.kind, r.strength) for r in rungs[:3]] == [("as they are", 0.0), ("blur", 0.5), ("blur", 1.0)]
    assert order(rungs, "mixed", "fid", "min") == 1
    assert order(rungs, "prompts", "fid", "min") is None
    assert order(rungs, "prompts", "clip", "max") is not None


def test_order_is_the_share_of_steps_that_are_worse() -> None:
    def told(*values: float | None) -> list[Rung]:
        return [Rung("blur" if i else "as they are", float(i), {"x": value}) for i, value in enumerate(values)]

    assert order(told(1.0, 2.0, 3.0), "blur", "x", "min") == 1
    assert order(told(1.0, 2.0, 3.0), "blur", "x", "max") == 0
    assert order(told(1.0, 2.0, 1.5, 4.0), "blur", "x", "min") == pytest.approx(2 / 3)
    assert order(told(1.0, None), "blur", "x", "min") is None
    assert order(told(1.0, 1.0), "blur", "x", "min") is None
