"""From an image file to the RGB pixels that training sees."""

import io
import struct
import zlib
from functools import cache
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageColor, ImageOps

VERSION = 2  # of what decoding makes of a file; part of the fingerprint
WHITE = (255, 255, 255)

# Not read: what Pillow hands to other programs (EPS, WMF), films (MPEG), and containers that it only recognises.
_NOT_IMAGES = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
# What Pillow's decoders raise on broken files.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read here."""
    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NOT_IMAGES))


@cache
def suffixes() -> frozenset[str]:
    """How names of image files end, with the dot, in small letters."""
    read = {*formats(), "MPO"}  # the JPEG of two lenses, opened as JPEG
    return frozenset(suffix for suffix, format in Image.registered_extensions().items() if format in read)


def colour(background: str) -> tuple[int, int, int]:
    """RGB of a colour by name, #rrggbb or another of ImageColor's forms. Raises ValueError."""
    allowed = "allowed: a name such as white, or #rrggbb"
    try:
        rgb = ImageColor.getrgb(background)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"background={background!r} is not a colour; {allowed}") from None
    if len(rgb) == 4 and rgb[3] != 255:
        raise ValueError(f"background={background!r} is transparent itself; {allowed}")
    return rgb[:3]


def pixel_size(stream: BinaryIO) -> tuple[int, int]:
    """(H, W) as the file's header says, before it is turned upright. Raises one of `UNREADABLE`."""
    with Image.open(stream, formats=formats()) as image:
        return image.height, image.width


def decode(data: bytes, size: tuple[int, int], background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """An image file -> uint8 [3, H, W] of size (H, W): upright, on `background`, centre crop, resized, antialiased.

    The crop is the largest of the shape H : W. Of several frames the first. Raises one of `UNREADABLE`.
    """
    h, w = size
    twice = 2 * max(size)  # along both axes: the image may still lie on its side
    with Image.open(io.BytesIO(data), formats=formats()) as image:
        image.draft("RGB", (twice, twice))  # JPEG: decode at a fraction, never below twice what is needed
        image.load()
        rgb = _rgb(_upright(image), background)
    width, height = rgb.size
    if (width, height) != (w, h):
        across, down = min(width, height * w / h), min(height, width * h / w)
        left, top = (width - across) / 2, (height - down) / 2
        rgb = rgb.resize((w, h), Image.Resampling.BICUBIC, (left, top, left + across, top + down))
    return np.asarray(rgb).transpose(2, 0, 1)


def _upright(image: Image.Image) -> Image.Image:
    """As viewers show it: cameras store how they were held."""
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:  # a broken record of the camera says nothing of the pixels
        return image


def _rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    under = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(under, image.convert("RGBA")).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 bits, which Pillow also opens in 32, scaled from 0..65535; gray of floats from 0..1.

    Other numbers of 32 bits have no agreed white.
    """
    values = np.asarray(image).astype(np.float64)
    white = 1.0 if image.mode == "F" else 65535.0
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):
        raise ValueError(
            f"its pixels are 32-bit numbers from {low:g} to {high:g}, and which of them is white is not known; "
            f"allowed: 8 or 16 bits, integers in 0..65535, floats in 0..1"
        )
    return Image.fromarray((values * (255 / white) + 0.5).astype(np.uint8))
