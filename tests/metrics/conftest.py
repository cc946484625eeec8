from pathlib import Path
from typing import Any

import pytest
import torch

from flowzoo.encoders.clip import build_clip, save_clip
from flowzoo.metrics.extractor import Extractor


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, architecture: dict[str, Any]) -> Path:
    """A random CLIP in a file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    about = {"name": "random", "quality": {}, "data": "none", "command": ""}
    save_clip(build_clip(architecture), path, architecture=architecture, about=about)
    return path


@pytest.fixture(scope="session")
def extractor(weights: Path) -> Extractor:
    return Extractor(weights)
