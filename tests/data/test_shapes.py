"""The procedural world: pure, split, distinguishable, and rendered as its scenes say."""

import pickle

import numpy as np
import pytest
from scipy import ndimage

from flowzoo.data import drawing
from flowzoo.data.scenes import COLOURS, GROUNDS, SHAPES, SIZES, TEXTURES, TINT
from flowzoo.data.shapes import Shapes


@pytest.mark.parametrize("size", [16, 32, 64])
def test_images_are_a_pure_function_of_the_index(size: int) -> None:
    source = Shapes("train", image_size=size)
    whole = source.images(range(200))
    assert whole.shape == (200, 3, size, size)
    assert whole.dtype == np.uint8
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(source.images(order.tolist()), whole[order])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).images([7]), whole[7:8])
    far = 10**12
    np.testing.assert_array_equal(source.images([far]), Shapes("train", image_size=size, size=1).images([far]))


def test_splits_seeds_and_indices_share_no_scene() -> None:
    sources = [Shapes("train"), Shapes("val"), Shapes("train", seed=1), Shapes("val", seed=1)]
    seen = {image.tobytes() for source in sources for image in source.images(range(1000))}
    assert len(seen) == 4000
    assert len({source.fingerprint for source in sources}) == 4


def test_fingerprint_follows_the_drawing_and_not_the_captions() -> None:
    assert Shapes("val").fingerprint == Shapes("val", captions="terse").fingerprint
    others = [Shapes("val", image_size=16), Shapes("val", size=10), Shapes("val")]
    assert len({source.fingerprint for source in others}) == 3


def test_attributes_follow_their_law() -> None:
    scene = Shapes("train").scenes(range(40_000))

    def shares(values: np.ndarray, options: int) -> np.ndarray:
        return np.bincount(values, minlength=options) / len(values)

    # Five standard errors of a share of 40,000 draws.
    def near(found: np.ndarray, law: float | np.ndarray) -> None:
        assert np.abs(found - law).max() < 5 * 0.5 / 200

    near(shares(scene.count - 1, 3), 1 / 3)
    near(shares(scene.size[:, 0], len(SIZES)), 1 / 2)
    near(shares(scene.ground[:, 0], len(GROUNDS)), 1 / len(GROUNDS))
    near(shares(scene.texture, len(TEXTURES)), np.array([0.3, 0.25, 0.15, 0.15, 0.15]))
    near(shares(scene.angle.astype(int) % 2, 2).sum(), 1)
    for j in range(3):
        near(shares(scene.shape[:, j], len(SHAPES)), 1 / len(SHAPES))
        near(shares(scene.colour[:, j], len(COLOURS)), 1 / len(COLOURS))
    near(scene.grouped[scene.count > 1].mean(), 0.25)
    # Attributes are drawn independently of each other.
    joint = np.histogram2d(scene.shape[:, 0], scene.colour[:, 0], bins=(8, 8))[0] / 40_000
    assert np.abs(joint - 1 / 64).max() < 5 * np.sqrt(1 / 64 / 40_000)
    assert np.abs(np.corrcoef(scene.wording.T) - np.eye(6)).max() < 0.025


def test_objects_are_told_from_each_other_and_from_every_ground() -> None:
    colours = np.array(list(COLOURS.values()), float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e9 * np.eye(len(colours))
    assert apart.min() > 90
    scene = Shapes("train").scenes(range(20_000))
    share = np.linspace(0, 1, 9)[:, None, None]
    tones = scene.ground_rgb[:, 0] * (1 - share) + scene.ground_rgb[:, 1] * share  # [9, n, 3]
    rgb = scene.rgb[:, 0]
    assert np.linalg.norm(tones - rgb, axis=-1).min() > 45
    assert np.abs(rgb - colours[scene.colour[:, 0]]).max() <= TINT


def test_as_many_objects_are_seen_as_the_scene_holds() -> None:
    source = Shapes("val", image_size=64)
    scene, images = source.scenes(range(400)), source.images(range(400)).astype(int)
    for i, image in enumerate(images):
        covered = np.zeros((64, 64), bool)
        for j in range(scene.count[i]):
            covered |= np.abs(image - scene.rgb[i, j, :, None, None]).max(0) < 2
        assert ndimage.label(covered, np.ones((3, 3)))[1] == scene.count[i], i


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_signed_distances_within_their_bounds(shape: str) -> None:
    axis = np.linspace(-1.5, 1.5, 601)
    d = drawing.DISTANCES[shape](axis[None, None, :], axis[None, :, None])[0]
    # Never faster than a distance, or edges would be jagged.
    for step, length in ((d[1:] - d[:-1], 1), (d[:, 1:] - d[:, :-1], 1), (d[1:, 1:] - d[:-1, :-1], 2**0.5)):
        assert np.abs(step).max() < 1.005 * length * (axis[1] - axis[0])
    y, x = np.nonzero(d < 0)
    assert max(abs(axis[x]).max(), abs(axis[y]).max()) <= 1.045
    np.testing.assert_allclose(d, d[:, ::-1], atol=1e-12)  # upright and symmetric
    area = (d < 0).mean() * 9
    assert 1.0 < area < np.pi + 0.1  # no shape is so thin that its colour is lost at 16 px


@pytest.mark.parametrize("size", [16, 32])
def test_edges_are_antialiased(size: int) -> None:
    # The mean of an image hardly depends on the resolution it is drawn at.
    small, large = (Shapes("train", image_size=s).images(range(300)).mean((2, 3)) for s in (size, 64))
    assert np.abs(small - large).mean() < 0.8


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"image_size": 15}, "image_size=15.*16 to 64"),
        ({"image_size": 128}, "image_size=128"),
        ({"size": 0}, "size=0"),
        ({"captions": "long"}, "captions='long'.*terse, dense, mix"),
        ({"split": "test"}, "split='test'.*train, val"),
    ],
)
def test_mistakes_are_named(mistake: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shapes(**{"split": "train", **mistake})


def test_negative_indices_are_refused() -> None:
    with pytest.raises(IndexError, match="-1"):
        Shapes("train").images([0, -1])


def test_the_easier_world_is_of_the_same_kind() -> None:
    easy = Shapes("train", image_size=16, most_objects=1, textured=False)
    scenes = easy.scenes(range(500))
    assert (scenes.count == 1).all()
    assert (scenes.texture == 0).all()
    assert easy.fingerprint != Shapes("train", image_size=16).fingerprint
    with pytest.raises(ValueError, match="most_objects=4"):
        Shapes("train", most_objects=4)
