"""The image side of the frozen networks: what turns uint8 images into what the backbone sees, and back."""

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """Pixels in place of latents: shift and scale by stored statistics, to zero mean and unit deviation (paper B.2).

    mean, std: one number a channel, in 0..1 pixel units. Nothing is trained and nothing enters a checkpoint.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        if mean is None or std is None:
            raise ValueError(
                f"mean={mean}, std={std}: the statistics of the images are needed; measure(source) finds them"
            )
        if len(mean) != len(std) or not len(mean):
            raise ValueError(f"mean={list(mean)} and std={list(std)} must have one number for each channel")
        if min(std) <= 0:
            raise ValueError(f"std={list(std)} must be above 0: a channel of one value cannot be normalised")
        scale = 255 * torch.tensor(list(std), dtype=torch.float64)
        shift = 255 * torch.tensor(list(mean), dtype=torch.float64)
        self.register_buffer("_scale", scale.float()[:, None, None], persistent=False)
        self.register_buffer("_shift", shift.float()[:, None, None], persistent=False)

    @property
    def channels(self) -> int:
        """C of what the backbone sees."""
        return len(self._scale)

    def latent_size(self, image_size: int) -> int:
        """H = W of what the backbone sees, for images of `image_size` pixels."""
        return image_size

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] -> float32 [B, C, H, W], normalised."""
        return (images.float() - self._shift) / self._scale

    def decode(self, x0: Tensor) -> Tensor:
        """Normalised [B, C, H, W] of any float type -> uint8 [B, C, H, W], rounded, clamped to 0..255."""
        return (x0.float() * self._scale + self._shift).round().clamp(0, 255).to(torch.uint8)
