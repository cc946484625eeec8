"""A convolutional KL autoencoder (Rombach et al. 2022, appendix E; the kind that SD3 uses), small enough to ship."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTORS = (2, 4, 8)


class Posterior(NamedTuple):
    """A normal distribution of the latents of each image, [n, c, h, w]."""

    mean: Tensor
    log_variance: Tensor


class KLNetwork(nn.Module):
    """Encoder and decoder. Images are float [n, C, H, W] in -1..1.

    Args:
        image_channels: C.
        factor: f = 2, 4 or 8 pixels per latent along each axis.
        channels: c of the latents.
        widths: of the resolutions, the image's first; one more than halvings, so 2, 3 or 4 numbers. Multiples of 8.
        blocks: residual blocks at each resolution.

    Raises ValueError for what is not allowed.
    """

    def __init__(self, image_channels: int, factor: int, channels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        if factor not in FACTORS:
            raise ValueError(f"factor={factor}: allowed are {', '.join(map(str, FACTORS))}")
        if 2 ** (len(widths) - 1) != factor:
            raise ValueError(f"widths={list(widths)}: allowed are {factor.bit_length()} numbers for factor={factor}")
        if min(widths) < 8 or any(width % 8 for width in widths):
            raise ValueError(f"widths={list(widths)}: allowed are multiples of 8")
        for name, value in (("channels", channels), ("blocks", blocks)):
            if value < 1:
                raise ValueError(f"{name}={value}: allowed is an integer of at least 1")
        self.architecture: Mapping[str, Any] = {
            "image_channels": image_channels,
            "factor": factor,
            "channels": channels,
            "widths": list(widths),
            "blocks": blocks,
        }
        self.image_channels, self.factor, self.channels = image_channels, factor, channels
        first, last = widths[0], widths[-1]
        down: list[nn.Module] = [nn.Conv2d(image_channels, first, 3, padding=1)]
        for i, width in enumerate(widths):
            if i:
                down += [nn.Conv2d(widths[i - 1], width, 3, stride=2, padding=1)]
            down += [Residual(width, width) for _ in range(blocks)]
        down += [Attention(last), Residual(last, last), *_out(last, 2 * channels)]
        up: list[nn.Module] = [nn.Conv2d(channels, last, 3, padding=1), Residual(last, last), Attention(last)]
        for i, width in reversed(list(enumerate(widths))):
            up += [Residual(width, width) for _ in range(blocks)]
            if i:
                up += [Upsample(width, widths[i - 1])]
        up += _out(first, image_channels)
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)

    def encode(self, x: Tensor) -> Posterior:
        """Images [n, C, H, W] -> normal distributions of latents [n, c, H/f, W/f]."""
        out = self.encoder(x)
        # under autocast the network is in bf16, the distribution is not
        mean, log_variance = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-30, 20))

    def decode(self, z: Tensor) -> Tensor:
        """Latents [n, c, h, w] -> images [n, C, h f, w f], about -1..1."""
        return self.decoder(z)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images and normal noise [n, c, H/f, W/f] -> reconstruction of a drawn latent, mean and log variance of it."""
        mean, log_variance = self.encode(x)
        return self.decode(mean + (0.5 * log_variance).exp() * noise), mean, log_variance


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))); the last convolution starts at zero."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_out(width, out), *_out(out, out))
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.body[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Attention(nn.Module):
    """One head over all places, x + out(attention(norm(x))); the last product starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)  # [n, 1, h w, width]
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y[:, 0].transpose(1, 2).reshape(x.shape))


class Upsample(nn.Module):
    """Twice the size, each place four times, then a convolution."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def _out(width: int, out: int) -> list[nn.Module]:
    return [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1)]


def build_kl(architecture: Mapping[str, Any]) -> KLNetwork:
    """From `KLNetwork.architecture`."""
    return KLNetwork(**architecture)


def to_float(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 -> -1..1."""
    return images.to(dtype) / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """-1..1 -> uint8, rounded and clamped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
