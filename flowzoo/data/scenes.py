"""The law of the procedural world: which objects a scene holds, where, in which colours, on which ground.

A scene is a pure function of (key, index): every attribute is a hash of the index and the attribute's number, so scenes
are unlimited, in random access, and made many at once. Lengths are in image widths, x to the right and y down.
"""

from dataclasses import dataclass

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "star", "ring", "cross", "heart")
SIZES = ("small", "large")
TEXTURES = ("plain", "gradient", "striped", "checkered", "grainy")
MOST = 3  # objects in a scene

# Objects are saturated, grounds are muted, so that no object can vanish in its ground (a test holds the distance).
COLOURS = {
    "red": (222, 36, 40),
    "orange": (250, 138, 20),
    "yellow": (252, 226, 40),
    "green": (40, 168, 62),
    "cyan": (40, 210, 225),
    "blue": (38, 84, 232),
    "purple": (146, 48, 190),
    "pink": (252, 120, 186),
}
GROUNDS = {
    "white": (244, 244, 244),
    "gray": (128, 128, 128),
    "black": (14, 14, 14),
    "beige": (222, 204, 172),
    "brown": (98, 66, 44),
    "navy": (20, 26, 78),
}
TINT = 10.0  # largest deviation of a colour's channel from the table

_RADIUS = np.array([[0.135, 0.15], [0.20, 0.22]])  # of SIZES, lowest and highest
_STEP = 0.25  # from the middle to where objects stand
_JITTER = 0.02
_DRIFT = 0.10  # of a pair, across the axis on which it stands
_GROUPED = 0.25  # share of scenes of several objects whose objects are all alike
_TEXTURE = np.cumsum([0.3, 0.25, 0.15, 0.15])  # the rest is grainy

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIELDS = 49  # draws a scene


def _mix(z: np.ndarray) -> np.ndarray:
    """The output function of splitmix64 (Steele, Lea & Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniforms(key: int, indices: np.ndarray, fields: int) -> np.ndarray:
    """Draws in [0, 1), float64 [n, fields]; each a hash of (key, index, field) alone."""
    start = _mix(np.array([key], np.uint64) + (indices.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    words = _mix(start[:, None] + np.arange(1, fields + 1, dtype=np.uint64) * _GOLDEN)
    return (words >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class Scenes:
    """n scenes, one array an attribute; objects beyond `count` are present in the arrays and not in the scene."""

    count: np.ndarray  # [n] 1..3
    grouped: np.ndarray  # [n] bool: all objects share shape, colour and size
    shape: np.ndarray  # [n, 3] into SHAPES
    colour: np.ndarray  # [n, 3] into COLOURS, distinct unless grouped
    size: np.ndarray  # [n, 3] into SIZES
    direction: np.ndarray  # [n, 2] x, y in -1, 0, 1: where the first object stands, seen from the middle and the others
    center: np.ndarray  # [n, 3, 2] x, y
    radius: np.ndarray  # [n, 3]
    rgb: np.ndarray  # [n, 3, 3] of the objects, 0..255
    texture: np.ndarray  # [n] into TEXTURES
    ground: np.ndarray  # [n, 2] into GROUNDS; the second matters to gradients only
    ground_rgb: np.ndarray  # [n, 2, 3], what the texture runs between
    angle: np.ndarray  # [n] of the texture, radians, a multiple of pi/4
    periods: np.ndarray  # [n] of the texture in an image width
    phase: np.ndarray  # [n, 2] of the texture, 0..1
    wording: np.ndarray  # [n, 6] in 0..1, free draws for the captions


def scenes(key: int, indices: np.ndarray, most: int = MOST, textured: bool = True) -> Scenes:
    """The scenes of non-negative integer `indices` [n] in the stream of `key`: 1 to `most` objects; plain grounds alone
    unless `textured`."""
    u = uniforms(key, indices, _FIELDS)
    n = len(u)
    taken = 0

    def draw(*shape: int) -> np.ndarray:
        nonlocal taken
        width = int(np.prod(shape))
        taken += width
        return u[:, taken - width : taken].reshape(n, *shape)

    def pick(options: int, *shape: int) -> np.ndarray:
        return (draw(*shape) * options).astype(np.int64)

    count = 1 + pick(most)
    grouped = (draw() < _GROUPED) & (count > 1)
    shape, size = pick(len(SHAPES), MOST), pick(len(SIZES), MOST)
    colour = np.argsort(draw(len(COLOURS)), axis=1, kind="stable")[:, :MOST]
    for attribute in (shape, size, colour):
        attribute[grouped] = attribute[grouped, :1]

    # One object stands anywhere on a 3 x 3 grid, two face each other on one axis, three hold the corners of a right
    # angle with the first one at its vertex: every relation that captions name is plain, and objects do not overlap.
    alone, pair = count == 1, count == 2
    side = np.where(draw(2) < 0.5, -1, 1)
    upright = draw() < 0.5
    direction = np.where(alone[:, None], pick(3, 2) - 1, side)
    direction[pair, np.where(upright, 0, 1)[pair]] = 0
    center = np.repeat(0.5 + _STEP * direction[:, None].astype(np.float64), MOST, axis=1)
    center[pair, 1] = 0.5 - _STEP * direction[pair]
    center[count == 3, 1, 0] = 0.5 - _STEP * direction[count == 3, 0]
    center[count == 3, 2, 1] = 0.5 - _STEP * direction[count == 3, 1]
    center[pair] += (direction[pair] == 0)[:, None] * (2 * draw(1, 2)[pair] - 1) * _DRIFT
    center += (2 * draw(MOST, 2) - 1) * _JITTER
    low, high = _RADIUS[size, 0], _RADIUS[size, 1]
    radius = low + (high - low) * draw(1)
    rgb = np.array(list(COLOURS.values()), np.float64)[colour] + (2 * draw(3)[:, None] - 1) * TINT

    texture = np.searchsorted(_TEXTURE, draw(), side="right") * textured
    ground = np.stack([pick(len(GROUNDS)), pick(len(GROUNDS) - 1)], axis=1)
    ground[:, 1] += ground[:, 1] >= ground[:, 0]
    ground_rgb = np.array(list(GROUNDS.values()), np.float64)[ground] + (2 * draw(3)[:, None] - 1) * TINT
    shaded = TEXTURES.index("gradient") != texture
    ground_rgb[shaded, 1] = _shade(ground_rgb[shaded, 0])
    return Scenes(
        count=count,
        grouped=grouped,
        shape=shape,
        colour=colour,
        size=size,
        direction=direction,
        center=center,
        radius=radius,
        rgb=rgb.clip(0, 255),
        texture=texture,
        ground=ground,
        ground_rgb=ground_rgb.clip(0, 255),
        angle=pick(8) * (np.pi / 4),
        periods=3 + draw(),
        phase=draw(2),
        wording=draw(6),
    )


def _shade(rgb: np.ndarray) -> np.ndarray:
    """The second tone of a textured ground: lighter for dark grounds, darker for light ones."""
    return rgb + np.where(rgb.mean(1, keepdims=True) < 110, 44.0, -44.0)
