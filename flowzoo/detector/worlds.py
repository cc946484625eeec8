"""What the detector learns from: scenes without end, those of the world and freer ones."""

from dataclasses import dataclass, replace

import numpy as np

from flowzoo.data.drawing import draw
from flowzoo.data.scenes import COLOURS, SHAPES, SIZES, TINT, Scenes, scenes, uniforms
from flowzoo.randomness import word

MOST = 4  # objects in a free scene
_RADII = np.array([[0.125, 0.155], [0.19, 0.23]])  # of SIZES, lowest and highest: a little more than the world's
_APART = 1.12  # least distance of two middles, in sums of radii
_TRIES = 12  # places that are tried for an object before it is left out


@dataclass(frozen=True)
class Labelled:
    """Images of one size, and what stands in them."""

    images: np.ndarray  # uint8 [n, 3, H, W]
    there: np.ndarray  # bool [n, MOST]: whether there is such an object
    center: np.ndarray  # float32 [n, MOST, 2] x, y in image widths
    words: np.ndarray  # int64 [n, MOST, 3] into SHAPES, COLOURS, SIZES


def free(key: int, indices: np.ndarray) -> Scenes:
    """Scenes of none to MOST objects that stand anywhere, with every attribute drawn on its own.

    In the world itself an object's place and colour tell much about the others; a detector that learned this would see
    in a generated image what should be there. Grounds and colours are the world's.
    """
    n = len(indices)
    u = uniforms(word(key, "free"), indices, 4 + MOST * (4 + 2 * _TRIES))
    count = (u[:, 0] * (MOST + 1)).astype(np.int64)
    tint = (2 * u[:, None, 1:4] - 1) * TINT
    each = u[:, 4:].reshape(n, MOST, 4 + 2 * _TRIES)
    shape, colour, size = (
        (each[..., k] * options).astype(np.int64) for k, options in enumerate((len(SHAPES), len(COLOURS), len(SIZES)))
    )
    low, high = _RADII[size, 0], _RADII[size, 1]
    radius = low + (high - low) * each[..., 3]
    center = np.zeros((n, MOST, 2))
    there = np.zeros((n, MOST), bool)
    for j in range(MOST):
        r = radius[:, j, None, None]
        tried = r + (1 - 2 * r) * each[:, j, 4:].reshape(n, _TRIES, 2)
        distance = np.linalg.norm(tried[:, :, None] - center[:, None, :j], axis=-1)  # [n, tries, j]
        clear = distance >= _APART * (radius[:, None, :j] + radius[:, j, None, None])
        fits = (clear | ~there[:, None, :j]).all(2)
        center[:, j] = tried[np.arange(n), fits.argmax(1)]
        there[:, j] = fits.any(1) & (j < count)
    front = np.argsort(~there, axis=1, kind="stable")  # those that found a place come first

    def sorted_(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, front.reshape(*front.shape, *[1] * (values.ndim - 2)), 1)

    colour = sorted_(colour)
    return replace(
        scenes(key, indices),
        count=there.sum(1),
        grouped=np.zeros(n, bool),
        shape=sorted_(shape),
        colour=colour,
        size=sorted_(size),
        center=sorted_(center),
        radius=sorted_(radius),
        rgb=(np.array(list(COLOURS.values()), np.float64)[colour] + tint).clip(0, 255),
    )


def labelled(scene: Scenes, pixels: int) -> Labelled:
    """`scene` drawn, with its truth."""
    images = draw(scene, pixels)
    words = np.stack([scene.shape, scene.colour, scene.size], -1)
    missing = MOST - words.shape[1]
    there = np.arange(MOST) < scene.count[:, None]
    center = np.pad(scene.center, ((0, 0), (0, missing), (0, 0))).astype(np.float32)
    return Labelled(images, there, center, np.pad(words, ((0, 0), (0, missing), (0, 0))))


class Batches:
    """The batches of a training by their number: `shares` says how many images of each size one has.

    Half of them are scenes of the world, the others free ones; no scene is seen twice.
    """

    def __init__(self, seed: int, steps: int, shares: dict[int, int]) -> None:
        self.seed, self.steps, self.shares = seed, steps, shares

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[Labelled]:
        parts = []
        for pixels, n in self.shares.items():
            key = word("detector", self.seed, pixels)
            indices = np.arange(step * n, (step + 1) * n)
            parts += [labelled(scenes(key, indices[: n // 2]), pixels), labelled(free(key, indices[n // 2 :]), pixels)]
        return parts
