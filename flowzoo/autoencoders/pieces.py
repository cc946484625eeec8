"""A function of a batch, computed in pieces that fit the memory."""

from collections.abc import Callable

import torch
from torch import Tensor

PIXELS = 2**22  # of the images of a piece at most: 4,096 of 32 x 32, 4 of 1,024 x 1,024


class Pieces:
    """Calls functions on pieces of a batch; where a GPU's memory does not suffice, on smaller ones from then on."""

    def __init__(self) -> None:
        self.pixels = PIXELS

    def __call__(self, function: Callable[[Tensor], Tensor], batch: Tensor, pixels: int) -> Tensor:
        """function(batch), where an image of the batch has so many pixels; the function is of each image alone.

        Raises torch.OutOfMemoryError where a single image is too large.
        """
        while True:
            size = max(1, self.pixels // pixels)
            try:
                parts = [function(part) for part in batch.split(size)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            self.pixels = min(size, len(batch)) // 2 * pixels
