import math

import pytest
import torch
from torch import Tensor

from flowzoo.metrics.reconstruction import lpips, psnr, ssim


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
