"""Captions say what the pixels show."""

import re

import numpy as np
import open_clip
import pytest

from flowzoo.data.scenes import COLOURS, GROUNDS, SHAPES, SIZES, TEXTURES
from flowzoo.data.shapes import Shapes

N = 2000
THING = re.compile(rf"({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")


@pytest.fixture(scope="module")
def source() -> Shapes:
    return Shapes("val", image_size=64)


def test_dense_names_every_object_and_the_ground(source: Shapes) -> None:
    scene = source.scenes(range(N))
    for i in range(N):
        caption = source.captions(i)[1]
        named = THING.findall(caption)
        things = [
            (SIZES[scene.size[i, j]], tuple(COLOURS)[scene.colour[i, j]], SHAPES[scene.shape[i, j]])
            for j in range(scene.count[i])
        ]
        if scene.grouped[i]:
            assert caption.startswith({2: "two ", 3: "three "}[scene.count[i]])
            assert named == things[:1] == things[-1:]
        else:
            assert named == things
        grounds = [g for g in re.findall(r"\w+", caption) if g in GROUNDS]
        gradient = TEXTURES[scene.texture[i]] == "gradient"
        assert grounds == [tuple(GROUNDS)[g] for g in scene.ground[i][: 1 + gradient]]
        assert TEXTURES[scene.texture[i]] in caption
        assert ("background" in caption) != gradient


def test_relations_and_places_hold_in_the_pixels(source: Shapes) -> None:
    colours = np.array(list(COLOURS.values()), float)
    images = source.images(range(400)).astype(float)
    checked = 0
    for i, image in enumerate(images):
        caption = source.captions(i)[1]
        named = THING.findall(caption)
        if caption.startswith(("two", "three")):
            continue
        distance = np.linalg.norm(image[:, None] - colours.T[:, :, None, None], axis=0)
        middles = []
        for _, colour, _ in named:
            y, x = np.nonzero(distance[tuple(COLOURS).index(colour)] < 20)
            assert len(x) >= 20, (i, colour)
            middles.append(((x.min() + x.max() + 1) / 128 - 0.5, (y.min() + y.max() + 1) / 128 - 0.5))
        x0, y0 = middles[0]
        relations = re.findall("left of|right of|above|below", caption) if len(named) > 1 else []
        for relation, k in zip(relations, middles[1:], strict=True):
            sign = -1 if relation in ("left of", "above") else 1
            across = relation in ("left of", "right of")
            assert sign * ((x0 - k[0]) if across else (y0 - k[1])) > 0.4
            checked += 1
        if len(named) == 1:
            assert (x0 < -0.15, x0 > 0.15) == ("left" in caption, "right" in caption)
            assert (y0 < -0.15, y0 > 0.15) == ("top" in caption, "bottom" in caption)
            assert ("center" in caption) == (max(abs(x0), abs(y0)) < 0.15)
    assert checked > 200


def test_terse_says_less_and_nothing_false(source: Shapes) -> None:
    words = tuple(COLOURS) + SIZES
    told = []
    for i in range(N):
        terse, dense = source.captions(i)
        said = [w for w in terse.split() if w in words]
        assert set(said) <= set(dense.split()), (terse, dense)
        shapes = [w for w in re.findall(r"\w+", terse) if w.rstrip("s") in SHAPES or w in SHAPES or w == "crosses"]
        assert shapes, terse
        assert shapes[0] in dense
        told.append(any(w in COLOURS for w in said))
        assert len(terse) < len(dense)
    assert 0.4 < np.mean(told) < 0.6


def test_captions_fit_the_encoders_and_are_plain_english(source: Shapes) -> None:
    tokenizer = open_clip.SimpleTokenizer()
    for i in range(N):
        for caption in source.captions(i):
            assert caption == caption.lower().strip()
            assert len(re.findall(r"\w+", caption)) <= 22
            assert len(tokenizer.encode(caption)) + 2 <= 32
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |\bones\b", caption)


def test_captions_are_pure_whatever_was_asked_before(source: Shapes) -> None:
    forward = [source.captions(i) for i in range(300)]
    backward = [Shapes("val", image_size=16).captions(i) for i in reversed(range(300))]
    assert forward == backward[::-1]


def test_dense_captions_are_nearly_unique(source: Shapes) -> None:
    assert len({source.prompt(i) for i in range(N)}) > 0.93 * N


def test_the_setting_picks_the_alternatives() -> None:
    terse, dense, mix = (Shapes("train", captions=c) for c in ("terse", "dense", "mix"))
    for i in range(20):
        assert mix.captions(i) == terse.captions(i) + dense.captions(i)
        assert mix.prompt(i) == dense.prompt(i) == dense.captions(i)[0]
        assert terse.prompt(i) == terse.captions(i)[0]
