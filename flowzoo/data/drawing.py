"""Scenes to pixels: signed distances of the shapes, textures of the grounds, all evaluated on whole batches."""

from collections.abc import Callable, Mapping

import numpy as np

from flowzoo.data.scenes import SHAPES, TEXTURES, Scenes, uniforms

_TILE = 128
_GRAIN = uniforms(0, np.arange(_TILE), _TILE).astype(np.float32)  # [128, 128]


def draw(scene: Scenes, pixels: int) -> np.ndarray:
    """uint8 [n, 3, pixels, pixels]. An object covers what is under it by its share of the pixel."""
    axis = ((np.arange(pixels) + 0.5) / pixels).astype(np.float32)
    first, second = _planes(scene.ground_rgb).swapaxes(0, 1)
    canvas = first + (second - first) * _ground(scene, axis)[:, None]
    rgb = _planes(scene.rgb)
    for j in range(scene.shape.shape[1]):
        rows = np.flatnonzero(scene.count > j)
        cover = np.empty((len(rows), pixels, pixels), np.float32)
        for s, name in enumerate(SHAPES):
            of_shape = np.flatnonzero(scene.shape[rows, j] == s)
            i = rows[of_shape]
            x, y = _planes(scene.center[i, j]).swapaxes(0, 1)
            r = _planes(scene.radius[i, j])
            distance = DISTANCES[name]((axis - x) / r, (axis[:, None] - y) / r) * (r * pixels)
            cover[of_shape] = np.clip(0.5 - distance, 0, 1)
        under = canvas[rows]
        canvas[rows] = under + (rgb[rows, j] - under) * cover[:, None]
    return (canvas + 0.5).astype(np.uint8)


def _planes(numbers: np.ndarray) -> np.ndarray:
    """float32 with two trailing axes, which broadcast over H and W."""
    return numbers.astype(np.float32)[..., None, None]


# No shape reaches beyond 1.04 radii along x or y, so that neighbours do not touch.
# Signed distance to the outline, negative inside, in radii, of x [m, 1, W] and y [m, H, 1] from the middle, y down.


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _length(x, y) - 1


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) - 0.88


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Apex (0, -1), base from (-1.04, 0.85) to (1.04, 0.85); a side's outward normal is (1.85, -1.04) / 2.122.
    return np.maximum(y - 0.85, (1.85 * abs(x) - 1.04 * (y + 1)) / 2.122)


def _diamond(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Taller than wide, with the corners (0.82, 0) and (0, 1.04).
    return (1.04 * abs(x) + 0.82 * abs(y) - 0.82 * 1.04) / 1.324


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Folded into half a point: the edge runs from the tip (1.04, 0) to the notch at 36 degrees and radius 0.5.
    tip, notch, half = 1.04, 0.48, np.pi / 5
    angle = abs((np.arctan2(x, -y) + half) % (2 * half) - half)
    along, across = np.cos(angle), np.sin(angle)
    ex, ey = notch * np.cos(half) - tip, notch * np.sin(half)
    r = _length(x, y)
    return ((along * r - tip) * ey - across * r * ex) / np.hypot(ex, ey)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return abs(_length(x, y) - 0.77) - 0.25


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = abs(x), abs(y)
    return np.minimum(np.maximum(x - 1, y - 0.34), np.maximum(x - 0.34, y - 1))


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A square on its corner and two discs on its upper edges.
    d = 0.86
    x, y = abs(x), y - 0.1
    return np.minimum((x + abs(y) - d) / np.sqrt(2), _length(x - d / 2, y + d / 2) - d / np.sqrt(2))


DISTANCES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
}


def _ground(scene: Scenes, axis: np.ndarray) -> np.ndarray:
    """float32 [n, H, W] in 0..1: how far the ground is from its first tone to its second."""
    out = np.zeros((len(scene.count), len(axis), len(axis)), np.float32)
    for name, paint in PAINTS.items():
        i = np.flatnonzero(scene.texture == TEXTURES.index(name))
        if i.size:
            out[i] = paint(scene, i, axis)
    return out


def _gradient(scene: Scenes, i: np.ndarray, axis: np.ndarray) -> np.ndarray:
    c, s = _planes(np.cos(scene.angle[i])), _planes(np.sin(scene.angle[i]))
    return 0.5 + ((axis - 0.5) * c + (axis[:, None] - 0.5) * s) / (abs(c) + abs(s))


def _edge(phase: np.ndarray, periods: np.ndarray, pixels: int) -> np.ndarray:
    """-0.5..0.5, pixels to the next edge of a square wave, so that a pixel on the edge gets its share of both tones."""
    wave = 2 * np.pi * periods
    return (np.sin(wave * phase) * (pixels / wave)).clip(-0.5, 0.5)


def _striped(scene: Scenes, i: np.ndarray, axis: np.ndarray) -> np.ndarray:
    c, s, periods = (_planes(a) for a in (np.cos(scene.angle[i]), np.sin(scene.angle[i]), scene.periods[i]))
    return 0.5 + _edge(axis * c + axis[:, None] * s + _planes(scene.phase[i, 0]), periods, len(axis))


def _checkered(scene: Scenes, i: np.ndarray, axis: np.ndarray) -> np.ndarray:
    periods = _planes(scene.periods[i])
    x, y = (_planes(scene.phase[i, k]) for k in (0, 1))
    return 0.5 + 2 * _edge(axis + x, periods, len(axis)) * _edge(axis[:, None] + y, periods, len(axis))


def _grainy(scene: Scenes, i: np.ndarray, axis: np.ndarray) -> np.ndarray:
    x, y = ((_TILE * scene.phase[i, k]).astype(np.int64)[:, None] + np.arange(len(axis)) for k in (0, 1))
    return _GRAIN[y[:, :, None] % _TILE, x[:, None, :] % _TILE]


# A plain ground stays at its first tone.
PAINTS: Mapping[str, Callable[[Scenes, np.ndarray, np.ndarray], np.ndarray]] = {
    "gradient": _gradient,
    "striped": _striped,
    "checkered": _checkered,
    "grainy": _grainy,
}
