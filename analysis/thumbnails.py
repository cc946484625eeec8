"""Sample grids as data URIs small enough for one page."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

WIDTHS = (560, 440, 340, 260, 180, 120)  # pixels, tried from the largest
QUALITY = 80


def thumbnails(grids: Mapping[str, Path], budget: int) -> dict[str, str]:
    """WebP data URIs of the pictures, all at the largest of `WIDTHS` that keeps them within `budget` bytes together.

    A picture that cannot be read is left out; pictures are never enlarged.
    """
    out: dict[str, str] = {}
    for width in WIDTHS:
        out = {name: uri for name, path in grids.items() if (uri := _uri(path, width))}
        if sum(map(len, out.values())) <= budget:
            break
    return out


def _uri(path: Path, width: int) -> str | None:
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except OSError:
        return None
    if image.width > width:
        image = image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
