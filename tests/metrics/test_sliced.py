"""Laws of the sliced Wasserstein distance of patches."""

from typing import Any

import pytest
import torch
from torch import Tensor

from flowzoo.metrics.extractor import Extractor
from flowzoo.metrics.metric import HeldOut, Made
from flowzoo.metrics.sliced import SlicedWasserstein, _enlarged, bands, directions, patches, wasserstein


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).byte()


def test_the_pyramid_gives_the_images_back() -> None:
    images = draw(2, 3, 64, 96)
    x, (fine, middle, coarse) = images.float() / 255, bands(images)
    assert [band.shape[-2:] for band in (fine, middle, coarse)] == [(64, 96), (32, 48), (16, 24)]
    torch.testing.assert_close(fine + _enlarged(middle + _enlarged(coarse)), x)
    assert fine.mean().abs() < 0.01  # a band has no mean, the small image has all of it
    assert coarse.mean() == pytest.approx(float(x.mean()), abs=0.01)
    assert len(bands(draw(1, 3, 16, 16))) == 1
    assert len(bands(draw(1, 3, 34, 34))) == 2  # 17 is odd


def test_a_patch_is_a_cut_of_its_image_and_does_not_depend_on_the_batch() -> None:
    band = torch.rand(5, 3, 20, 24)
    found = patches(band, 7, 0)
    assert found.shape == (5, 16, 3 * 49)
    windows = band.unfold(2, 7, 1).unfold(3, 7, 1).permute(0, 2, 3, 1, 4, 5).reshape(5, -1, 3 * 49)
    for image in range(5):
        assert all((windows[image] == one).all(1).any() for one in found[image])
    assert torch.equal(patches(band[3:], 10, 0), found[3:])
    assert not torch.equal(patches(band, 7, 1), found)


def test_distance_of_laws_on_a_line() -> None:
    """A shift costs its length along each direction; order and repetition cost nothing."""
    axes = directions(6)
    torch.testing.assert_close(axes.norm(dim=0), torch.ones(128))
    x, shift = torch.randn(50, 6), torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 3.0])
    own, moved = ((y @ axes).sort(0).values for y in (x, x + shift))
    assert float(wasserstein(own, moved)) == pytest.approx(float((shift @ axes).abs().mean()), rel=1e-5)
    assert float(wasserstein(own, own)) == 0
    assert float(wasserstein(own, own.repeat_interleave(3, 0))) == pytest.approx(0, abs=1e-6)


def scored(numbers: Any, *members: Tensor, batch: int = 1000, finite: Tensor | None = None) -> list[dict[str, Any]]:
    """The members' images against those of `numbers`."""
    metric = SlicedWasserstein()
    extractor = Extractor()
    assert metric.begin(HeldOut(numbers, len(numbers), extractor, {}, len(members[0]), None, None)) == ""
    statistics, images = metric.statistics(), torch.stack(members)
    features = torch.zeros(*images.shape[:2], 4)
    if finite is not None:
        features[~finite] = torch.nan
    for first in range(0, images.shape[1], batch):
        part = slice(first, first + batch)
        n = images[:, part].shape[1]
        statistics.update(Made(images[:, part], features[:, part], [""] * n, torch.zeros(n, 4)))
    return statistics.values()


def test_images_are_no_distance_from_themselves_and_each_band_sees_its_own_damage(numbers: Any) -> None:
    images = torch.from_numpy(numbers.images(range(len(numbers))))
    gen = torch.Generator().manual_seed(0)
    noise = torch.randint(-20, 21, images.shape, generator=gen)
    noisy = (images + noise).clamp(0, 255).byte()
    darker = images // 2
    same, fine, coarse = scored(numbers, images, noisy, darker)
    assert same == {"swd": 0.0, "swd_fine": 0.0, "swd_coarse": 0.0}
    assert fine["swd_fine"] > 2 * fine["swd_coarse"]
    assert coarse["swd_coarse"] > coarse["swd_fine"]
    assert fine["swd"] == pytest.approx((fine["swd_fine"] + fine["swd_coarse"]) / 2)


def test_members_and_batches_do_not_touch_each_other(numbers: Any) -> None:
    one, other = draw(30, 3, 32, 32), draw(30, 3, 32, 32, seed=1)
    together = scored(numbers, one, other, batch=7)
    for own, member in zip(together, (one, other), strict=True):
        assert own == pytest.approx(scored(numbers, member)[0])


def test_a_sample_that_is_not_finite_has_no_distance(numbers: Any) -> None:
    finite = torch.ones(2, 10, dtype=torch.bool)
    finite[1, 3] = False
    sound, broken = scored(numbers, draw(10, 3, 32, 32), draw(10, 3, 32, 32), finite=finite)
    assert all(x == x for x in sound.values())
    assert all(x != x for x in broken.values())
