from pathlib import Path
from typing import Any

import pytest
import torch
from numbered import Numbers

from flowzoo.encoders.clip import build_clip, save_clip
from flowzoo.metrics.extractor import Extractor

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.2, 0.3],
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


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
