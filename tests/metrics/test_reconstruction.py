import math
from typing import Any

import numpy as np
import pytest
import torch
from numbered import Numbers
from torch import Tensor

from flowzoo.autoencoders.pca import BlockPCA
from flowzoo.metrics.extractor import Extractor
from flowzoo.metrics.fid import frechet_distance
from flowzoo.metrics.moments import Moments
from flowzoo.metrics.reconstruction import lpips, picture, psnr, reconstruct, ssim


def pair() -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(0)
    images = torch.randint(10, 246, (3, 3, 24, 16), generator=gen)
    return images.byte(), (images + torch.randint(-9, 10, images.shape, generator=gen)).byte()


def test_psnr_of_a_known_error_and_of_none() -> None:
    images, _ = pair()
    assert psnr(images, images + 5).tolist() == pytest.approx([20 * math.log10(255 / 5)] * 3)
    assert psnr(images, images).tolist() == [math.inf] * 3


def test_ssim_is_one_for_equal_images_and_that_of_its_formula_for_a_shift_of_brightness() -> None:
    """A shift changes no variance: only the term of the means is left."""
    flat = torch.full((1, 1, 16, 16), 100, dtype=torch.uint8)
    c1 = (0.01 * 255) ** 2
    known = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ssim(flat, flat + 20).item() == pytest.approx(known, rel=1e-6)
    images, back = pair()
    torch.testing.assert_close(ssim(images, images), torch.ones(3).double())
    assert (ssim(images, back) < 1).all()


def test_each_image_is_scored_alone() -> None:
    images, back = pair()
    for score in (psnr, ssim):
        each = torch.cat([score(images[i : i + 1], back[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(score(images, back), each)


def test_lpips_sees_images_in_its_range() -> None:
    class Range(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.stack([x.amin((1, 2, 3)), y.amax((1, 2, 3))], 1)

    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert lpips(levels, levels, Range()).tolist() == [[-1.0, 1.0]]


@pytest.mark.filterwarnings("ignore:.*few for FID")
def test_a_set_is_scored_as_its_images_are(numbers: Numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over chunks of any size: means of each image's scores, and the Frechet distance between the two sets."""
    monkeypatch.setattr("flowzoo.autoencoders.statistics._CHUNK", 37)
    images = torch.from_numpy(numbers.images(range(100)))
    autoencoder = BlockPCA(3, factor=4, channels=5)
    autoencoder.fit([images])
    extractor = Extractor()
    found = reconstruct(autoencoder, numbers, 100, extractor=extractor, perceptual=Brightness(), keep=3)
    spread = torch.from_numpy(numbers.images([i * len(numbers) // 100 for i in range(100)]))
    back = autoencoder.decode(autoencoder.encode(spread))
    assert found.images == 100
    assert found.psnr == pytest.approx(float(psnr(spread, back).mean()))
    assert found.ssim == pytest.approx(float(ssim(spread, back).mean()))
    assert found.lpips == pytest.approx(float(lpips(spread, back, Brightness()).mean()))
    moments = [Moments(64).update(extractor.images(x)) for x in (spread, back)]
    assert found.rfid == pytest.approx(frechet_distance(*moments), rel=1e-4)
    assert torch.equal(picture(found), torch.cat([x[[0, 50, 99]] for x in (spread, back)]))


class Brightness(torch.nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.mean((1, 2, 3)) - y.mean((1, 2, 3))).abs()


def test_fewer_images_are_all_taken_and_small_ones_have_no_ssim() -> None:
    found = reconstruct(_Halved(), Tiny(30), 10**6, keep=2)
    assert found.images == 30
    assert found.ssim is None
    assert found.rfid is found.lpips is None
    assert 48 < found.psnr < 52  # half of the numbers are one too low


class Tiny(Numbers):
    size = (8, 8)

    def images(self, indices: Any) -> np.ndarray:
        return super().images(indices)[..., :8, :8]


class _Halved:
    """Loses the lowest bit."""

    image_channels, channels, factor, fingerprint = 3, 3, 1, ""

    def encode(self, images: Tensor) -> Tensor:
        return (images // 2).float()

    def decode(self, latents: Tensor) -> Tensor:
        return (2 * latents).byte()

    def to(self, *args: object) -> None: ...
