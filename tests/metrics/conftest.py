from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowzoo.metrics.extractor import Extractor, build_clip, save_clip

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.2, 0.3],
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class Numbers:
    """A source whose image i is noise around a level that its captions name."""

    name, image_size, channels = "numbers", 32, 3

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


@pytest.fixture(scope="session")
def architecture() -> dict[str, Any]:
    return ARCHITECTURE


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP in a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    about = {"name": "random", "quality": {}, "data": "none", "command": ""}
    save_clip(build_clip(ARCHITECTURE), path, architecture=ARCHITECTURE, about=about)
    return path


@pytest.fixture(scope="session")
def extractor(weights: Path) -> Extractor:
    return Extractor(weights)
