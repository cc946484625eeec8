from typing import Any

import numpy as np
import torch

from flowzoo.encoders.clip import tokenizer
from flowzoo.metrics.clip_data import Augment, load_set
from flowzoo.randomness import generator


def test_set_holds_all_images_and_captions(numbers: Any) -> None:
    one = load_set(numbers, 16, workers=0, chunk=33)
    two = load_set(numbers, 16, workers=2, chunk=50)
    assert all(torch.equal(getattr(one, k), getattr(two, k)) for k in ("images", "choices", "counts", "tokens"))
    assert np.array_equal(one.images.numpy(), numbers.images(range(len(numbers))))
    assert len(one.tokens) == 15  # distinct captions
    for i in range(len(numbers)):
        expected = tokenizer(16)(list(numbers.captions(i)))
        assert torch.equal(one.tokens[one.choices[i, : one.counts[i]]].long(), expected)


def test_batches_draw_captions_of_their_images(numbers: Any) -> None:
    data = load_set(numbers, 16, workers=0)
    data.images[:, 0, 0, 0] = torch.arange(len(numbers))
    images, captions = data.batch(4000, generator(0, 0, "test"))
    index = images[:, 0, 0, 0].long()
    allowed = data.choices[index]
    assert ((allowed[:, 0] == captions) | ((allowed[:, 1] == captions) & (data.counts[index] == 2))).all()
    second = (captions != allowed[:, 0])[data.counts[index] == 2].double().mean()
    assert 0.45 < second < 0.55  # uniformly
    assert len(index.unique()) == len(numbers)


def images(n: int = 64) -> torch.Tensor:
    gen = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 32, 32), generator=gen, dtype=torch.uint8)


def test_no_augmentation_is_the_identity() -> None:
    torch.testing.assert_close(Augment()(images(), generator(0, 0, "a")), images() / 255, atol=1e-4, rtol=0)


def test_flip_mirrors_about_half_and_shift_moves_whole_pixels() -> None:
    x = images(400) / 255
    y = Augment(flip=True)(images(400), generator(0, 0, "a"))
    mirrored = (y - x.flip(-1)).abs().amax((1, 2, 3)) < 1e-3
    same = (y - x).abs().amax((1, 2, 3)) < 1e-3
    assert (mirrored ^ same).all()
    assert 0.4 < mirrored.double().mean() < 0.6
    moved = Augment(translate=0.1)(images(), generator(0, 0, "a"))
    shifts = [(dy, dx) for dy in range(-3, 4) for dx in range(-3, 4)]
    inner = (slice(None), slice(4, 28), slice(4, 28))
    for a, b in zip(images() / 255, moved, strict=True):
        errors = [(a.roll(s, (1, 2))[inner] - b[inner]).abs().max() for s in shifts]
        assert min(errors) < 1e-3


def test_all_of_it_stays_in_range_and_repeats() -> None:
    augment = Augment(translate=0.1, scale=0.2, rotate=0.2, flip=True, colour=0.3, cutout=0.4, halve=0.5)
    y = augment(images(), generator(0, 0, "a"))
    assert y.min() >= 0
    assert y.max() <= 1
    assert torch.equal(y, augment(images(), generator(0, 0, "a")))
    assert not torch.equal(y, augment(images(), generator(0, 1, "a")))
