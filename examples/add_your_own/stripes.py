"""Data of your own: striped images that are drawn when they are asked for."""

from collections.abc import Sequence

import numpy as np

WORDS = ("horizontal", "vertical")


class Stripes:
    """One split of `length` images [3, size, size], each a function of its number, which no other split has."""

    def __init__(self, split: str, size: int = 16, length: int = 500) -> None:
        self.name, self.size, self.channels, self._length = "stripes", (size, size), 3, length
        self._first = 0 if split == "train" else 1_000_000
        self.fingerprint = f"stripes, version 1, {split}, {size}, {length}"  # of the images: other images, another text

    def __len__(self) -> int:
        return self._length

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, 3, H, W]."""
        return np.stack([self._image(self._first + i) for i in indices])

    def captions(self, index: int) -> tuple[str, ...]:
        """The alternatives that training draws from."""
        return (self.prompt(index), f"a picture of {WORDS[index % 2]} stripes")

    def prompt(self, index: int) -> str:
        """The caption under which samples are made."""
        return f"{WORDS[index % 2]} stripes"

    def _image(self, number: int) -> np.ndarray:
        draw = np.random.RandomState(number)
        wave = np.sin(np.arange(self.size[0]) * draw.uniform(0.4, 1.6) + draw.uniform(0, 6.3))
        grey = np.broadcast_to(wave[:, None] if number % 2 == 0 else wave, self.size)
        return (127.5 + 127 * grey * draw.uniform(0.3, 1.0, (3, 1, 1))).astype(np.uint8)
