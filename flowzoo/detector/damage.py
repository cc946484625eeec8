"""Random damage to training images, of the kinds that autoencoders and unfinished sampling do to pictures."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 4  # pixels along a block of the principal components
COMPONENTS = (6, 16)  # least and most of the 48 that are kept
_DCT = 8  # pixels along a block of the cosine transform


def principal(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [48] and components [48, 48], the first explaining most, of the 4 x 4 blocks of images [n, 3, H, W]."""
    blocks = F.pixel_unshuffle(images, BLOCK).permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = blocks.mean(0)
    vectors = torch.linalg.eigh((blocks - mean).T @ (blocks - mean)).eigenvectors
    return mean.float(), vectors.flip(1).T.contiguous().float()


def reconstructed(images: Tensor, mean: Tensor, components: Tensor, kept: Tensor) -> Tensor:
    """Images [n, 3, H, W] from their first `kept` [n] components alone."""
    x = F.pixel_unshuffle(images, BLOCK).movedim(1, -1) - mean
    latents = x @ components.T * (torch.arange(len(components), device=x.device) < kept.view(-1, 1, 1, 1))
    return F.pixel_shuffle((latents @ components + mean).movedim(-1, 1), BLOCK)


def cosines(device: torch.device) -> Tensor:
    """The orthonormal DCT-II, [8, 8], a row a frequency."""
    k = torch.arange(_DCT, device=device, dtype=torch.float32)
    rows = torch.cos(math.pi / _DCT * (k + 0.5) * k[:, None]) * math.sqrt(2 / _DCT)
    rows[0] /= math.sqrt(2)
    return rows


def quantised(images: Tensor, step: Tensor) -> Tensor:
    """Images [n, 3, H, W] whose 8 x 8 cosine coefficients are rounded as JPEG does, to `step` [n] and coarser above."""
    n, c, h, w = images.shape
    d = cosines(images.device)
    x = images.view(n, c, h // _DCT, _DCT, w // _DCT, _DCT).transpose(3, 4)
    k = torch.arange(_DCT, device=images.device)
    grain = step.view(-1, 1, 1, 1, 1, 1) * (1 + 0.5 * (k + k[:, None]))
    x = d.T @ ((d @ x @ d.T / grain).round() * grain) @ d
    return x.transpose(3, 4).reshape(n, c, h, w)


def blurred(images: Tensor) -> Tensor:
    """Images [n, 3, H, W] under a Gaussian of 1.2 pixels."""
    taps = torch.exp(-0.5 * (torch.arange(-3, 4, device=images.device) / 1.2) ** 2)
    kernel = (taps / taps.sum()).expand(3, 1, 1, 7)
    x = F.conv2d(F.pad(images, (3, 3, 0, 0), "replicate"), kernel, groups=3)
    return F.conv2d(F.pad(x, (0, 0, 3, 3), "replicate"), kernel.mT, groups=3)


class Damage:
    """Random damage to a batch: each kind strikes a share of the images, so that some are left as they are."""

    def __init__(self, clean: Tensor, share: float = 0.3) -> None:
        """clean: images [n, 3, 32, 32] in 0..1 whose principal components are taken."""
        self.mean, self.components = principal(clean)
        self.share = share

    def __call__(self, images: Tensor, gen: torch.Generator) -> Tensor:
        """Images [n, 3, 32, 32] in 0..1 to as many."""
        n, device = len(images), images.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=gen, device=device)

        def some(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
            struck = uniform(n).argsort()[: int(self.share * n)]
            return x.index_copy(0, struck, change(x[struck]).to(x.dtype))

        low, high = COMPONENTS
        x = some(images, lambda x: x.lerp(blurred(x), uniform(len(x), 1, 1, 1)))
        x = some(
            x, lambda x: reconstructed(x, self.mean, self.components, low + uniform(len(x)).mul(high - low + 1).floor())
        )
        x = some(x, lambda x: quantised(x, 0.02 + 0.13 * uniform(len(x))))
        x = some(
            x, lambda x: (x - 0.5) * (1 + 0.2 * (uniform(len(x), 3, 1, 1) - 0.5)) + 0.5 + 0.06 * (uniform(1) - 0.5)
        )
        noise = torch.randn(x.shape, generator=gen, device=device)
        x = some(x, lambda x: x + 0.08 * uniform(len(x), 1, 1, 1) * noise[: len(x)])
        return x.clamp(0, 1)
