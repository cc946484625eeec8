"""`data=shapes`, the embedded default: a procedural captioned world of 16 to 64 px, drawn on demand."""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256

import numpy as np

from flowzoo.data.captions import CHOICES
from flowzoo.data.drawing import draw
from flowzoo.data.scenes import COLOURS, GROUNDS, MOST, SHAPES, TEXTURES, Scenes, scenes
from flowzoo.data.source import check_split
from flowzoo.randomness import word

VERSION = 1  # of the drawing; part of the fingerprint
_CHUNK = 64  # images drawn at once: their float planes stay in the cache
_BLOCK = 64  # scenes kept at hand for captions, which are asked for one by one


class Shapes:
    """One to three anti-aliased objects on a plain, graded or textured ground; a pure function of (seed, split, index).

    `most_objects` below 3 and `textured=False` (plain grounds alone) make an easier world of the same kind.

    Images are squares with an edge of `image_size`. `size` is the length that training and evaluation see; any
    non-negative index may be asked for.
    Shares no scene stream between splits. `captions` is terse, dense or mix (both, drawn by equal chances).
    """

    name = "shapes"
    channels = 3

    def __init__(
        self,
        split: str,
        image_size: int = 32,
        size: int = 50_000,
        seed: int = 0,
        captions: str = "mix",
        most_objects: int = MOST,
        textured: bool = True,
    ) -> None:
        if not isinstance(image_size, int) or not 16 <= image_size <= 64:
            raise ValueError(f"image_size={image_size} is out of range for shapes; allowed: 16 to 64 pixels")
        if size < 1:
            raise ValueError(f"size={size} is out of range; allowed: 1 or more images")
        if not 1 <= most_objects <= MOST:
            raise ValueError(f"most_objects={most_objects} is out of range for shapes; allowed: 1 to {MOST}")
        if captions not in CHOICES:
            raise ValueError(f"captions={captions!r} is not known; allowed: {', '.join(CHOICES)}")
        self.split = check_split(split)
        self.size = (image_size, image_size)
        self.seed = seed
        self._count = size
        self._scenes = partial(scenes, word("shapes", seed, split), most=most_objects, textured=textured)
        self._say = CHOICES[captions]
        self._block: tuple[int, Scenes] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def fingerprint(self) -> str:
        """Covers what the split draws: VERSION, parameters, tables of colours, attributes of its first scenes.

        Not the rendered pixels: their last bit may differ between machines.
        """
        first = self._scenes(np.arange(256))
        drawn = (first.count, first.shape, first.colour, first.size, first.texture, first.ground)
        about = repr((VERSION, self.split, self.size[0], self._count, self.seed, COLOURS, GROUNDS, SHAPES, TEXTURES))
        return sha256(about.encode() + b"".join(a.tobytes() for a in drawn)).hexdigest()[:16]

    def scenes(self, indices: Sequence[int]) -> Scenes:
        """What the images of `indices` show, and where."""
        asked = np.asarray(indices, np.int64)
        if asked.size and asked.min() < 0:
            raise IndexError(f"index {asked.min()} is negative; scenes are numbered from 0")
        return self._scenes(asked)

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, 3, H, W]."""
        out = np.empty((len(indices), 3, *self.size), np.uint8)
        for start in range(0, len(indices), _CHUNK):
            rows = slice(start, start + _CHUNK)
            out[rows] = draw(self.scenes(indices[rows]), self.size[0])
        return out

    def captions(self, index: int) -> tuple[str, ...]:
        """(terse,), (dense,) or (terse, dense)."""
        return tuple(say(*self._scene(index)) for say in self._say)

    def prompt(self, index: int) -> str:
        """The dense caption, unless `captions` is terse."""
        return self._say[-1](*self._scene(index))

    def _scene(self, index: int) -> tuple[Scenes, int]:
        number, row = divmod(index, _BLOCK)
        block = self._block
        if block is None or block[0] != number:
            block = number, self.scenes(range(number * _BLOCK, (number + 1) * _BLOCK))
            self._block = block
        return block[1], row
