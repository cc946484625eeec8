"""A module of its own: worker processes import the class by name, and every folder has a conftest."""

from typing import Any

import numpy as np


class Numbers:
    """A source whose image i is noise around a level that its captions name."""

    name, size, channels = "numbers", (32, 32), 3

    def __init__(self, n: int = 200, levels: int = 10) -> None:
        self.n, self.levels, self.fingerprint, self.read = n, levels, f"numbers-{n}", 0

    def __len__(self) -> int:
        return self.n

    def images(self, indices: Any) -> np.ndarray:
        self.read += len(indices)
        shape = (3, 32, 32)
        noise = [np.random.default_rng(i).integers(-20, 20, shape) + 25 * (i % self.levels) for i in indices]
        return np.stack(noise).clip(0, 255).astype(np.uint8)

    def captions(self, index: int) -> tuple[str, ...]:
        level = index % self.levels
        return (f"level {level}",) if level % 2 else (f"level {level}", f"an image of level {level}")

    def prompt(self, index: int) -> str:
        return f"level {index % self.levels}"
