"""The Frechet distance in features that were never trained."""

from typing import Any

import pytest
import torch

from flowzoo.metrics.extractor import Extractor
from flowzoo.metrics.fid import frechet_distance
from flowzoo.metrics.metric import HeldOut, Made
from flowzoo.metrics.moments import Moments
from flowzoo.metrics.random_features import RandomFID, RandomNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*few for FID")


def scored(numbers: Any, samples: torch.Tensor, broken: bool = False) -> float | None:
    metric = RandomFID()
    metric.begin(HeldOut(numbers, len(numbers), Extractor(), {}, len(samples), None, None))
    statistics = metric.statistics()
    features = torch.zeros(1, len(samples), 4)
    if broken:
        features[0, 0] = torch.nan
    for first in range(0, len(samples), 30):
        some = samples[first : first + 30]
        statistics.update(Made(some[None], features[:, first : first + 30], [""] * len(some), features[0]))
    (found,) = statistics.values()
    assert found.keys() == RandomFID.columns.keys()
    return found["fid_random"]


def test_it_is_the_frechet_distance_of_its_features(numbers: Any) -> None:
    images = torch.from_numpy(numbers.images(range(len(numbers))))
    darker = images // 2
    network = RandomNetwork()
    moments = [Moments(64).update(network.images(x)) for x in (darker, images)]
    assert scored(numbers, darker) == pytest.approx(frechet_distance(*moments), rel=1e-4)
    assert scored(numbers, images) == pytest.approx(0, abs=1e-5)
    broken = scored(numbers, images, broken=True)
    assert broken != broken  # nan
    assert scored(numbers, images[:64]) is None


def test_the_weights_are_the_same_everywhere() -> None:
    """Rows of different versions must never be compared: who changes the network changes VERSION."""
    one, other = RandomNetwork(), RandomNetwork()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    levels = torch.arange(3 * 32 * 32).remainder(256).byte().reshape(1, 3, 32, 32)
    known = [0.1422, 0.1687, -0.2082]
    torch.testing.assert_close(one.images(levels)[0, :3], torch.tensor(known), rtol=1e-3, atol=1e-3)


def test_images_of_any_size_and_of_one_channel() -> None:
    network = RandomNetwork()
    grey = torch.randint(256, (2, 1, 20, 28)).byte()
    assert network.images(grey).shape == (2, 64)
    torch.testing.assert_close(network.images(grey), network.images(grey.expand(-1, 3, -1, -1)))
