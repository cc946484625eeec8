import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from flowzoo.autoencoders.pixels import Pixels
from flowzoo.autoencoders.statistics import ChannelStatistics, check, measure, some_images, statistics_of
from flowzoo.runs.files import Refused


class Squares:
    """`n` images of 8 x 8: each of one grey level of its own, with little noise, as if seen by an unlike camera."""

    name, size, channels, fingerprint = "squares", (8, 8), 1, "squares"

    def __init__(self, n: int, seed: int, bright: float = 0.0, contrast: float = 1.0) -> None:
        draw = np.random.default_rng(seed)
        x = 128 + bright + contrast * (40 * draw.standard_normal((n, 1, 1, 1)) + draw.standard_normal((n, 1, 8, 8)))
        self._images = x.round().clip(0, 255).astype(np.uint8)

    def __len__(self) -> int:
        return len(self._images)

    def images(self, indices: Sequence[int]) -> np.ndarray:
        return self._images[list(indices)]

    def captions(self, index: int) -> tuple[str, ...]:
        return ("a square",)

    def prompt(self, index: int) -> str:
        return "a square"


def test_statistics_are_those_of_all_numbers_of_a_channel() -> None:
    images = torch.randint(256, (70, 3, 4, 6), generator=torch.Generator().manual_seed(0)).byte()
    found = statistics_of(Pixels(3), images.split(16))
    x = images.double().transpose(0, 1).flatten(1)
    assert found.mean == pytest.approx(x.mean(1).tolist())
    assert found.std == pytest.approx(x.std(1, correction=0).tolist())


def test_standard_errors_are_the_spread_over_sets_of_images() -> None:
    made = [measure(Pixels(1), Squares(200, seed)) for seed in range(300)]
    for what in ("mean", "std"):
        spread = np.std([getattr(one, what)[0] for one in made])
        told = np.mean([getattr(one, f"{what}_error")[0] for one in made])
        assert told == pytest.approx(spread, rel=0.15)  # of pixels it would be 1/8 of it


def test_images_are_evenly_spaced_and_at_most_so_many() -> None:
    source = Squares(1200, 0)
    chunks = list(some_images(source, 700))
    assert sum(map(len, chunks)) == 700
    assert max(map(len, chunks)) <= 500
    assert torch.equal(torch.cat(chunks)[350], torch.from_numpy(source.images([600]))[0])


def test_two_hundred_images_are_not_refused_by_chance() -> None:
    """Simulated: both sets have 200 images, whose means often are more than a tenth of the deviation apart."""
    apart = 0
    for seed in range(500):
        known = measure(Pixels(1), Squares(200, 2 * seed))
        seen = measure(Pixels(1), Squares(200, 2 * seed + 1))
        apart += abs(known.mean[0] - seen.mean[0]) > 0.1 * known.std[0]
        check(known, seen)
    assert apart > 100


@pytest.mark.parametrize("change", [{"bright": 10.0}, {"bright": -10.0}, {"contrast": 1.25}, {"contrast": 0.8}])
def test_statistics_that_are_off_by_a_fifth_are_refused(change: dict[str, float]) -> None:
    known = measure(Pixels(1), Squares(10_000, 0))
    with pytest.raises(Refused, match=r"channel 0 of the latents has (mean|deviation) .* on held-out images"):
        check(known, measure(Pixels(1), Squares(2_000, 1, **change)))
    check(known, measure(Pixels(1), Squares(2_000, 1, bright=2.0, contrast=1.05)))  # sure, but small


def test_given_statistics_are_held_to_be_exact() -> None:
    seen = ChannelStatistics((0.0, 0.3), (1.0, 1.0), (0.05, 0.05), (0.05, 0.05))
    with pytest.raises(Refused, match=r"channel 1 of the latents has mean 0, and 0.3 on held-out images: 30%"):
        check(ChannelStatistics.given([0.0, 0.0], [1.0, 1.0]), seen)


def test_one_image_says_nothing_of_others() -> None:
    one = statistics_of(Pixels(1), [torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)])
    assert one.mean_error == (math.inf,)
    check(ChannelStatistics.given([500.0], [1.0]), one)


def test_a_channel_of_one_value_is_refused() -> None:
    with pytest.raises(Refused, match="data squares: channel 0 of the latents is 128 everywhere"):
        measure(Pixels(1), Squares(10, 0, contrast=0.0))


def test_the_autoencoder_is_called_with_pieces() -> None:
    class Small(Pixels):
        def encode(self, images: Tensor) -> Tensor:
            assert len(images) <= 4
            return super().encode(images)

    statistics_of(Small(1), [torch.arange(10).byte().view(10, 1, 1, 1).expand(10, 1, 1024, 1024)])
