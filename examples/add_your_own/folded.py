"""An autoencoder of your own: squares of pixels become channels, and nothing is lost."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Folded(nn.Module):
    """Latents are the pixels of `factor` x `factor` squares, 0..255; `image_channels` is found out from the data."""

    def __init__(self, image_channels: int, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"factor={factor}: allowed is an integer of at least 1")
        self.image_channels, self.factor, self.channels = image_channels, factor, image_channels * factor**2
        self.fingerprint = f"folded, {factor}"  # of everything that decides latents and images

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> float32 [n, C f^2, H/f, W/f]."""
        return F.pixel_unshuffle(images.float(), self.factor)

    def decode(self, latents: Tensor) -> Tensor:
        """[n, C f^2, h, w] -> uint8 [n, C, h f, w f]."""
        return F.pixel_shuffle(latents, self.factor).round().clamp(0, 255).to(torch.uint8)
