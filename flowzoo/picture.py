"""Images side by side in one PNG file."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

COLUMNS = 8


def save_grid(path: Path, images: Tensor, columns: int = COLUMNS, gap: int = 2) -> None:
    """uint8 images [n, 3, H, W] as one PNG of rows of `columns`, on white."""
    n, _, h, w = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    canvas = torch.full((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), 255, dtype=torch.uint8)
    for i, image in enumerate(images):
        top, left = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        canvas[top : top + h, left : left + w] = image.permute(1, 2, 0)
    part = path.with_name(path.name + ".part")
    Image.fromarray(canvas.numpy()).save(part, format="PNG")
    part.replace(path)
