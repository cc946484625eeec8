"""The shipped detector sees what is there, says how good it is, and its file is read strictly or not at all."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flowzoo.content import SHIPPED_DETECTOR
from flowzoo.data.scenes import COLOURS, SHAPES, SIZES
from flowzoo.data.shapes import Shapes
from flowzoo.detector.detector import APART, Detector, read
from flowzoo.detector.loss import Truth
from flowzoo.detector.measure import ATTRIBUTES, accuracy, matched, measure
from flowzoo.detector.network import CELLS, HEADS, load
from flowzoo.detector.thing import Thing, things
from flowzoo.detector.worlds import MOST, labelled


@cache
def shipped() -> Detector:
    return Detector()


def test_the_shipped_file_is_small_and_at_least_as_good_as_promised() -> None:
    assert SHIPPED_DETECTOR.stat().st_size < 4e6
    quality = shipped().quality
    sharp = [quality["accuracy"][f"{pixels} px"] for pixels in (32, 64)]
    assert min(min(found.values()) for found in sharp) == quality["value"] >= 0.98
    assert all(set(found) == {"count", *ATTRIBUTES} for found in quality["accuracy"].values())


@pytest.mark.parametrize(("pixels", "least"), [(16, 0.97), (32, 0.98), (64, 0.98)])
def test_it_sees_held_out_scenes(pixels: int, least: float) -> None:
    assert min(measure(shipped(), pixels, 100).values()) >= least


def test_what_it_sees_depends_on_no_other_image_of_the_batch() -> None:
    images = torch.from_numpy(Shapes("val").images(range(12)))
    alone = [thing for image in images for thing in shipped()(image[None])]
    for together in (shipped()(images), Detector(batch_size=5)(images)):
        for one, other in zip(alone, together, strict=True):
            assert [(t.form, t.colour, t.size) for t in one] == [(t.form, t.colour, t.size) for t in other]
            np.testing.assert_allclose([(t.x, t.y) for t in one], [(t.x, t.y) for t in other], atol=1e-3)


def test_an_empty_ground_and_no_images_show_nothing() -> None:
    assert shipped()(torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)) == [[], []]
    assert shipped()(torch.zeros(0, 3, 32, 32, dtype=torch.uint8)) == []


def perfect_maps(truth: Truth) -> dict[str, torch.Tensor]:
    """What a network without error would say."""
    heat, offset, words = truth.targets()
    maps = {"heat": torch.logit(heat.clamp(1e-6, 1 - 1e-6))[:, None], "offset": offset.mT}
    for k, name in enumerate(("form", "colour", "size")):
        maps[name] = torch.nn.functional.one_hot(words[..., k], HEADS[name]).mT.float()
    return {name: values.reshape(len(heat), -1, CELLS, CELLS) for name, values in maps.items()}


def test_perfect_maps_are_read_as_the_truth() -> None:
    scene = Shapes("val").scenes(range(500))
    part = labelled(scene, 16)
    truth = Truth(*(torch.from_numpy(a) for a in (part.there, part.center, part.words)))
    assert part.there.shape == (500, MOST)
    seen = read(perfect_maps(truth))
    assert accuracy(seen, things(scene)) == dict.fromkeys(("count", *ATTRIBUTES), 1.0)
    for image in seen:
        places = np.array([(t.x, t.y) for t in image])
        apart = np.linalg.norm(places[:, None] - places, axis=-1)[~np.eye(len(places), dtype=bool)]
        assert (apart >= APART).all()


def test_the_accuracy_counts_what_was_changed() -> None:
    true = things(Shapes("val").scenes(range(300)))
    n = sum(map(len, true))
    rng = np.random.default_rng(0)

    def other(words: Any, word: str) -> str:
        return [w for w in words if w != word][rng.integers(len(words) - 1)]

    def changed(**change: Any) -> list[list[Thing]]:
        """The first thing of each image changed, and the others in reverse order."""
        return [
            [*image[:0:-1], Thing(**vars(image[0]) | {k: f(image[0]) for k, f in change.items()})] for image in true
        ]

    share = 1 - 300 / n
    for change in (
        {"form": lambda t: other(SHAPES, t.form)},
        {"colour": lambda t: other(tuple(COLOURS), t.colour)},
        {"size": lambda t: other(SIZES, t.size)},
        {"place": lambda t: t.x + 0.06},
    ):
        ((name, f),) = change.items()
        found = accuracy(changed(**{{"place": "x"}.get(name, name): f}), true)
        assert found == dict.fromkeys(("count", *ATTRIBUTES), 1.0) | {name: pytest.approx(share, abs=1e-4)}
    lost = accuracy([image[1:] for image in true], true)
    assert lost == {"count": 0.0} | dict.fromkeys(ATTRIBUTES, pytest.approx(share, abs=1e-4))


def test_things_are_matched_one_to_one_and_within_reach() -> None:
    near = [Thing("circle", "red", "small", 0.5 + dx, 0.5) for dx in (0, 0.05)]
    seen = [Thing("heart", "blue", "large", 0.52, 0.5), Thing("star", "blue", "large", 0.47, 0.5)]
    assert matched(seen, near) == seen[::-1]
    assert matched(seen[:1], near) == [seen[0], None]
    assert matched([Thing("heart", "blue", "large", 0.7, 0.5)], near[:1]) == [None]
    assert matched([], near) == [None, None]


def test_a_file_is_read_strictly(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"flowzoo\.detector\.train"):
        load(tmp_path / "none.safetensors")
    with safe_open(SHIPPED_DETECTOR, "pt") as file:
        metadata = file.metadata()
    state, path = load_file(SHIPPED_DETECTOR), tmp_path / "it.safetensors"
    wider = metadata | {"architecture": json.dumps({"widths": [48, 128], "blocks": [1, 3]})}
    fewer = {name: tensor for name, tensor in state.items() if name != "layers.0.weight"}
    for tensors, header, problem in (
        (state, metadata | {"format": "other"}, "was not written by"),
        (state, wider, "does not fit"),
        (fewer, metadata, "does not fit"),
    ):
        save_file(tensors, path, header)
        with pytest.raises(ValueError, match=problem):
            load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(path)
