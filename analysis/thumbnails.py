"""Sample grids as data URIs small enough for one page."""

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

WIDEST, NARROWEST = 560, 80  # pixels
QUALITY = 80


def thumbnails(grids: Mapping[str, Path], budget: int) -> dict[str, str]:
    """WebP data URIs of the pictures, all of one width, narrowed until together they take at most `budget` bytes.

    A picture that cannot be read is left out.
    """
    width = WIDEST
    while True:
        out = {name: uri for name, path in grids.items() if (uri := _uri(path, width))}
        total = sum(map(len, out.values()))
        if total <= budget or width <= NARROWEST:
            return out
        width = max(NARROWEST, int(width * min(0.9, math.sqrt(budget / total))))


def _uri(path: Path, width: int) -> str | None:
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError:
        return None
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    elif (whole := width // image.width) > 1:
        # WebP halves the resolution of colour, which would smear pictures of 16 x 16 pixels
        image = image.resize((whole * image.width, whole * image.height), Image.Resampling.NEAREST)
    data = io.BytesIO()
    image.save(data, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
