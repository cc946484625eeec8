"""The detector's training: free scenes, truthful labels, damage of the kinds that it names, and a file at the end."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowzoo.data.scenes import COLOURS, SHAPES, SIZES
from flowzoo.data.shapes import Shapes
from flowzoo.detector import train
from flowzoo.detector.damage import Damage, blurred, cosines, principal, quantised, reconstructed
from flowzoo.detector.detector import Detector
from flowzoo.detector.worlds import MOST, Batches, free


def clean(n: int) -> torch.Tensor:
    return torch.from_numpy(Shapes("train").images(range(n))) / 255


def test_free_scenes_are_a_pure_function_of_the_index() -> None:
    whole, part = free(7, np.arange(50)), free(7, np.arange(20, 30))
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(part, name), values[20:30])
    assert (free(8, np.arange(50)).shape != whole.shape).any()


def test_free_scenes_hold_none_to_four_objects_apart_and_inside() -> None:
    scene = free(0, np.arange(3000))
    assert set(scene.count) == set(range(MOST + 1))
    for i in range(len(scene.count)):
        n = scene.count[i]
        center, radius = scene.center[i, :n], scene.radius[i, :n]
        assert ((center >= radius[:, None]) & (center <= 1 - radius[:, None])).all()
        apart = np.linalg.norm(center[:, None] - center, axis=-1) - (radius[:, None] + radius)
        assert (apart[~np.eye(n, dtype=bool)] > 0).all()


def test_attributes_of_free_scenes_say_nothing_of_each_other() -> None:
    scene = free(0, np.arange(20_000))
    pair = scene.count >= 2
    for values, options in ((scene.shape, len(SHAPES)), (scene.colour, len(COLOURS)), (scene.size, len(SIZES))):
        joint = np.histogram2d(values[pair, 0], values[pair, 1], bins=options)[0] / pair.sum()
        # five standard errors, and the large find a place less often
        assert np.abs(joint - 1 / options**2).max() < 5 * (1 / options**2 / pair.sum()) ** 0.5 + 0.1 * (options == 2)


def test_a_batch_is_its_number_and_labels_are_of_its_images() -> None:
    data = Batches(0, 3, {32: 8, 16: 4})
    again = Batches(0, 3, {32: 8, 16: 4})[1]
    for one, other in zip(data[1], again, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
    colours = np.array(list(COLOURS.values()))
    for part in data[0]:
        pixels = part.images.shape[-1]
        for image, there, center, words in zip(part.images, part.there, part.center, part.words, strict=True):
            for (x, y), (form, colour, _) in zip(center[there], words[there], strict=True):
                if SHAPES[form] != "ring":
                    seen = image[:, int(y * pixels), int(x * pixels)]
                    assert np.abs(seen - colours[colour]).max() <= 11


def test_all_components_give_the_image_back_and_fewer_give_the_best_of_their_rank() -> None:
    images = clean(20)
    basis = principal(images)
    whole = reconstructed(images, *basis, torch.full((20,), 48))
    torch.testing.assert_close(whole, images, atol=1e-4, rtol=0)
    blocks = torch.nn.functional.pixel_unshuffle(images, 4).permute(0, 2, 3, 1).flatten(0, 2).double()
    blocks = blocks - blocks.mean(0)
    variances = torch.linalg.eigvalsh(blocks.T @ blocks).flip(0)
    for kept in (1, 6, 16):
        error = (reconstructed(images, *basis, torch.full((20,), kept)) - images).double().square().sum()
        torch.testing.assert_close(error, variances[kept:].sum(), rtol=1e-3, atol=1e-3)


def test_the_cosine_transform_is_orthonormal_and_rounding_stays_within_the_step() -> None:
    d = cosines(torch.device("cpu"))
    torch.testing.assert_close(d @ d.T, torch.eye(8), atol=1e-6, rtol=0)
    images = clean(4)
    torch.testing.assert_close(quantised(images, torch.full((4,), 1e-4)), images, atol=1e-3, rtol=0)
    coarse = quantised(images, torch.full((4,), 0.1))
    assert 0.005 < (coarse - images).square().mean().sqrt() < 0.1 * 8.5 / 12**0.5


def test_a_blur_keeps_what_is_flat_and_half_an_edge() -> None:
    flat = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(blurred(flat), flat)
    edge = (torch.arange(32) >= 16).float().expand(1, 3, 32, 32)
    row = blurred(edge)[0, 0, 5]
    torch.testing.assert_close(row + row.flip(0), torch.ones(32))
    assert row[15] > 0.2


def test_damage_strikes_some_images_and_repeats() -> None:
    images = clean(200)
    damage = Damage(images)
    one, other = (damage(images, torch.Generator().manual_seed(0)) for _ in range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    whole = (one == images).flatten(1).all(1).float().mean()
    assert 0.08 < whole < 0.3  # 0.7^5 = 0.17
    assert one.min() >= 0
    assert one.max() <= 1


def test_a_short_training_writes_a_file_that_the_detector_reads(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(train, "ARCHITECTURE", {"widths": [8, 16], "blocks": [0, 1]})
    path = tmp_path / "small.safetensors"
    words = ["--steps", "8", "--batch-size", "32", "--workers", "0", "--measure", "20", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    assert train.main() == 0
    said = capsys.readouterr().out
    losses = [float(line.split()[3]) for line in said.splitlines() if line.startswith("step")]
    assert losses[-1] < losses[0]
    assert [name.name for name in tmp_path.iterdir()] == [path.name]
    detector = Detector(path)
    assert detector.quality["data"] == "shapes, first 20 images of the val split"
    assert detector.identity["weights_sha256"] != Detector().identity["weights_sha256"]


@pytest.mark.parametrize("words", [["--steps", "0"], ["--lr", "much"], ["--output", "nowhere/x.safetensors"]])
def test_a_mistake_is_one_line(words: list[str], monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *words])
    try:
        code = train.main()
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    assert "allowed" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
