from pathlib import Path

import pytest
import torch

from flowzoo.autoencoders import kept
from flowzoo.autoencoders.pca import BlockPCA
from flowzoo.autoencoders.pixels import Pixels
from flowzoo.data.shapes import Shapes
from flowzoo.runs.files import Refused, RunError


@pytest.fixture(scope="module")
def splits() -> tuple[Shapes, Shapes]:
    return Shapes("train", image_size=16, size=200), Shapes("val", image_size=16, size=200)


def test_what_was_fitted_comes_back_bit_for_bit(splits: tuple[Shapes, Shapes], tmp_path: Path) -> None:
    pca = BlockPCA(3, 4, 6)
    found = kept.find(pca, *splits)
    assert found.std == pytest.approx(pca.variances[:6].sqrt().tolist(), rel=1e-4)
    kept.save(tmp_path / "kept.safetensors", pca, found)
    again = BlockPCA(3, 4, 6)
    assert kept.load(tmp_path / "kept.safetensors", again) == found
    assert again.fingerprint == pca.fingerprint
    images = torch.from_numpy(splits[1].images(range(5)))
    assert torch.equal(again.encode(images), pca.encode(images))
    assert (tmp_path / "kept.safetensors").stat().st_size < 10_000


def test_an_autoencoder_with_weights_of_its_own_keeps_statistics_alone(
    splits: tuple[Shapes, Shapes], tmp_path: Path
) -> None:
    found = kept.find(Pixels(3), *splits)
    kept.save(tmp_path / "kept.safetensors", Pixels(3), found)
    assert kept.load(tmp_path / "kept.safetensors", Pixels(3)) == found


def test_another_autoencoder_is_refused(splits: tuple[Shapes, Shapes], tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    pca = BlockPCA(3, 4, 6)
    kept.save(path, pca, kept.find(pca, *splits))
    with pytest.raises(RunError, match="another autoencoder"):
        kept.load(path, BlockPCA(3, 4, 7))
    with pytest.raises(RunError, match="this one's is pixels; allowed: the weights with which the run began"):
        kept.load(path, Pixels(3))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="cannot be read"):
        kept.load(path, pca)
    with pytest.raises(RunError, match="cannot be read"):
        kept.load(tmp_path / "none", pca)


def test_images_that_cannot_be_encoded_are_refused(splits: tuple[Shapes, Shapes]) -> None:
    few = Shapes("train", image_size=16, size=1)
    with pytest.raises(Refused, match="autoencoder on data shapes: channels=48: allowed are 1 to"):
        kept.find(BlockPCA(3, 4, 48), few, splits[1])
