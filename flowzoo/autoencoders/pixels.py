"""Pixels in place of latents."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowzoo.autoencoders.latents import Latents


class Pixels(nn.Module):
    """f = 1: latents are the pixels themselves, 0..255. `normalised_pixels` knows their statistics in units 0..1."""

    factor = 1

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        self.image_channels = self.channels = image_channels
        self.fingerprint = "pixels"

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> float32 [n, C, H, W], 0..255."""
        return images.float()

    def decode(self, latents: Tensor) -> Tensor:
        """[n, C, H, W] -> uint8 [n, C, H, W], rounded and clamped."""
        return latents.round().clamp(0, 255).to(torch.uint8)


def normalised_pixels(mean: Sequence[float], std: Sequence[float], gain: float = 1.0) -> Latents:
    """Pixels of known mean and deviation in 0..1, one number a channel (paper B.2)."""
    return Latents(Pixels(len(mean)), [255 * x for x in mean], [255 * x for x in std], gain)
