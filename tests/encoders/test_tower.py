from pathlib import Path

import pytest
import torch

from flowzoo.encoders.clip import build_clip, save_clip
from flowzoo.encoders.tower import ClipTower
from flowzoo.metrics.extractor import Extractor

CAPTIONS = ["a red circle", "a small blue square left of a large green star on a black background", "", "star " * 40]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture = {
        "embed_dim": 24,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tower.safetensors"
    save_clip(build_clip(architecture), path, architecture=architecture, about={"name": "tower", "quality": {}})
    return path


def test_pooled_is_the_text_embedding_of_the_extractor(weights: Path) -> None:
    tower = ClipTower(weights, length=20)
    tokens, pooled = tower.encode(CAPTIONS)
    assert (tower.length, tower.dim, tower.pooled_dim) == (20, 16, 24)
    assert tokens.shape == (4, 20, 16)
    torch.testing.assert_close(pooled, Extractor(weights).text(CAPTIONS))


def test_positions_after_the_end_are_zeros(weights: Path) -> None:
    tokens, _ = ClipTower(weights, length=20).encode(CAPTIONS)
    filled = tokens.ne(0).any(-1)
    assert filled.sum(1).tolist() == [5, 16, 2, 20]  # words and both ends
    assert (filled.long().diff(dim=1) <= 0).all()


def test_fewer_positions_are_the_first_ones(weights: Path) -> None:
    whole, pooled = ClipTower(weights, length=20).encode(CAPTIONS)
    short, same = ClipTower(weights, length=6).encode(CAPTIONS)
    assert torch.equal(short, whole[:, :6])
    assert torch.equal(same, pooled)


def test_frozen_and_yet_usable_in_training(weights: Path) -> None:
    tower = ClipTower(weights, length=6)
    assert not any(p.requires_grad for p in tower.model.parameters())
    layer = torch.nn.Linear(16, 2)
    layer(tower.encode(["a red circle"])[0]).sum().backward()
    assert layer.weight.grad is not None
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(tower.encode(CAPTIONS)[0], ClipTower(weights, length=6).encode(CAPTIONS)[0])


def test_fingerprint_holds_weights_and_length(weights: Path) -> None:
    assert ClipTower(weights, length=6).fingerprint != ClipTower(weights, length=7).fingerprint
    assert ClipTower(weights, length=6).fingerprint == ClipTower(weights, length=6).fingerprint
    with pytest.raises(ValueError, match=r"length=21.*1 to 20"):
        ClipTower(weights, length=21)
