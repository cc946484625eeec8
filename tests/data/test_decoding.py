"""Files become the pixels that people see: upright, on a background, in the range of their mode, antialiased."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from flowzoo.data.decoding import UNREADABLE, colour, decode, suffixes


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


EXACT: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}, "MPO": {"quality": 95}}
KINDS = ["PNG", "JPEG", "WEBP", "TIFF", "MPO", *(["AVIF"] if features.check("avif") else [])]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_cameras_orientation_is_followed(kind: str, orientation: int) -> None:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[:16, :16], pixels[:16, 16:], pixels[16:, :16] = 255, 170, 85
    # How a camera stores a picture that is to be shown as `pixels`.
    stored = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.T, 6: np.rot90(pixels), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored)).convert("RGB")
    shown = decode(saved(image, kind, exif=exif, **EXACT.get(kind, {})), (32, 32)).mean(0)[8::16, 8::16]
    np.testing.assert_allclose(shown, [[255, 170], [85, 0]], atol=20)


RGBA = np.zeros((4, 4, 4), np.uint8)
RGBA[:, :2] = (255, 0, 0, 255)
RGBA[:, 2:] = (0, 255, 0, 0)  # transparent: its green must not be seen


def palette() -> Image.Image:
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(1, (2, 0, 4, 4))
    return image


TRANSPARENT = {
    "RGBA": (saved(Image.fromarray(RGBA), "PNG"), (255, 0, 0)),
    "webp": (saved(Image.fromarray(RGBA), "WEBP", lossless=True), (255, 0, 0)),
    "P": (saved(palette(), "PNG", transparency=1), (255, 0, 0)),
    "gif": (saved(palette(), "GIF", transparency=1), (255, 0, 0)),
    "LA": (saved(Image.fromarray(RGBA).convert("LA"), "PNG"), (76, 76, 76)),
    "RGB with a transparent colour": (
        saved(Image.fromarray(RGBA[..., :3]), "PNG", transparency=(0, 255, 0)),
        (255, 0, 0),
    ),
}


@pytest.mark.parametrize("background", ["white", "#102030"])
@pytest.mark.parametrize("mode", TRANSPARENT)
def test_transparency_shows_the_background(mode: str, background: str) -> None:
    data, left = TRANSPARENT[mode]
    image = decode(data, (4, 4), colour(background))
    np.testing.assert_array_equal(image[:, 0, 0], left)
    np.testing.assert_array_equal(image[:, 0, 3], colour(background))


def test_half_transparent_is_half_of_each() -> None:
    pixel = Image.new("RGBA", (2, 2), (200, 0, 0, 128))
    np.testing.assert_allclose(decode(saved(pixel, "PNG"), (2, 2))[:, 0, 0], [227, 127, 127], atol=1)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_gray_of_sixteen_bits_keeps_its_range(order: str) -> None:
    values = np.array([[0, 257, 32768], [65535, 128, 40000]], np.uint16).repeat(2, 0)[:3]
    expected = np.round(values / 257)
    for kind in ("PNG", "TIFF"):
        shown = decode(saved(Image.fromarray(values.astype(order)), kind), (3, 3))
        np.testing.assert_array_equal(shown, np.broadcast_to(expected, (3, 3, 3)))


def test_gray_of_thirty_two_bits_is_read_where_its_white_is_known() -> None:
    integers = Image.fromarray(np.array([[0, 32896], [65535, 257]], np.int32))
    np.testing.assert_array_equal(decode(saved(integers, "TIFF"), (2, 2))[0], [[0, 128], [255, 1]])
    floats = np.array([[0, 0.5], [1, 0.25]], np.float32)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(floats), "TIFF"), (2, 2))[0], [[0, 128], [255, 64]])
    for unknown in (floats * 255, -floats, floats * np.nan):
        with pytest.raises(ValueError, match="which of them is white is not known"):
            decode(saved(Image.fromarray(unknown), "TIFF"), (2, 2))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"), ("1", "TIFF"), ("L", "BMP"), ("RGB", "BMP"), ("P", "GIF"), ("CMYK", "JPEG"), ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"), ("L", "JPEG"), ("RGB", "PPM"), ("RGB", "TGA"), ("L", "JPEG2000"), ("RGB", "ICO"),
    ],
)  # fmt: skip
def test_every_mode_keeps_black_and_white(mode: str, kind: str) -> None:
    gray = np.zeros((32, 32), np.uint8)
    gray[16:] = 255
    image = decode(saved(Image.fromarray(gray).convert("RGB").convert(mode), kind), (32, 32))[:, 8::16, 8::16]
    np.testing.assert_allclose(image, np.broadcast_to([[[0, 0], [255, 255]]], (3, 2, 2)), atol=12)


def test_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(decode(data, (4, 4))[:, 0, 0], [255, 0, 0], atol=6)


def test_broken_records_of_a_camera_leave_the_picture() -> None:
    data = saved(Image.new("RGB", (4, 4), "red"), "JPEG", exif=b"Exif\0\0nonsense")
    np.testing.assert_allclose(decode(data, (4, 4))[:, 0, 0], [255, 0, 0], atol=3)


def test_which_files_are_images() -> None:
    assert {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".mpo"} <= suffixes()
    assert (".avif" in suffixes()) == bool(features.check("avif"))
    assert not {".txt", ".eps", ".ps", ".pdf", ".mpg", ".h5", ".svg", ".db"} & suffixes()
    with pytest.raises(UNREADABLE):  # Pillow would hand it to another program
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", (4, 4))


def test_colours() -> None:
    assert [colour(name) for name in ("white", "#102030", "rgb(1, 2, 3)")] == [(255, 255, 255), (16, 32, 48), (1, 2, 3)]
    for bad in ("blak", "", "#12", "#10203040", None, 5):
        with pytest.raises(ValueError, match="background="):
            colour(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(300, 200), (200, 300)])
def test_decoding_takes_the_centred_square(kind: str, size: tuple[int, int]) -> None:
    # A wide gradient along the longer side: its middle 200 pixels remain, and their mean is the middle of the range.
    ramp = np.linspace(0, 255, 300)[None].repeat(200, 0)
    pixels = (ramp if size[0] == 300 else ramp.T).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(stream, kind)
    out = decode(stream.getvalue(), (16, 16)).astype(float)
    assert out.shape == (3, 16, 16)
    line = out.mean(0).mean(0 if size[0] == 300 else 1)
    np.testing.assert_allclose(line, 127.5 + (np.arange(16) - 7.5) / 16 * 170, atol=3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("stored", ["upright", "on its side"])
def test_decoding_takes_the_largest_centred_part_of_the_shape(kind: str, stored: str) -> None:
    """Of 800 x 600 pixels, 20 high and 10 wide, the middle 300 columns; 15 high and 40 wide, the middle 300 rows."""
    columns, rows = np.linspace(0, 255, 800)[None].repeat(600, 0), np.linspace(0, 255, 600)[:, None].repeat(800, 1)
    exif = Image.Exif()
    exif[0x0112] = 1 if stored == "upright" else 6  # to be turned clockwise
    turn = (lambda x: x) if stored == "upright" else np.rot90
    for ramp, size, axis, share in ((columns, (20, 10), 1, 300 / 800), (rows, (15, 40), 2, 300 / 600)):
        pixels = np.ascontiguousarray(turn(ramp)).astype(np.uint8)
        out = decode(saved(Image.fromarray(pixels).convert("RGB"), kind, exif=exif), size).astype(float)
        assert out.shape == (3, *size)
        line = out.mean((0, axis))
        n = len(line)
        np.testing.assert_allclose(line, 127.5 + (np.arange(n) - (n - 1) / 2) / n * 255 * share, atol=3)


def test_resizing_is_antialiased() -> None:
    fine = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(fine).convert("RGB").save(stream, "PNG")
    assert np.abs(decode(stream.getvalue(), (32, 32)).astype(float) - 127.5).max() < 3
