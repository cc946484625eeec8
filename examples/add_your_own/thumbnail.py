"""Features of your own: FID in the colours of small thumbnails."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Thumbnail:
    """An image's mean colours in 4 x 4 fields, [48]; it knows no text, so every caption is zeros."""

    dim = 48

    def __init__(self) -> None:
        self.identity: dict[str, Any] = {"name": "thumbnail", "version": 1}  # all that could change a feature
        self.quality: dict[str, Any] = {}  # what it is known to achieve, told beside its scores
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> "Thumbnail":
        self.device = torch.device(device)
        return self

    def images(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> float32 [n, 48]."""
        small = F.adaptive_avg_pool2d(images.to(self.device).float() / 255, 4)
        return small.expand(-1, 3, -1, -1).flatten(1)

    def text(self, captions: Sequence[str]) -> Tensor:
        """float32 [n, 48]."""
        return torch.zeros(len(captions), self.dim, device=self.device)
