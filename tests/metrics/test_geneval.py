"""GenEval on shapes: its prompts, and its scores of true and of shuffled scenes as the shipped detector sees them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowzoo.data.drawing import draw
from flowzoo.data.scenes import COLOURS, SHAPES, SIZES, Scenes, scenes
from flowzoo.data.shapes import Shapes
from flowzoo.detector.thing import things
from flowzoo.metrics.attributes import Attributes
from flowzoo.metrics.claims import Requirement, correct, requirement
from flowzoo.metrics.geneval import KINDS, GenEval, geneval_prompts
from flowzoo.metrics.metric import Made


def made(images: np.ndarray, prompts: list[str], finite: np.ndarray | None = None) -> Made:
    """uint8 [M, n, C, H, W]."""
    features = torch.zeros(*images.shape[:2], 2)
    if finite is not None:
        features[~torch.from_numpy(finite)] = torch.nan
    return Made(torch.from_numpy(images), features, prompts, torch.zeros(len(prompts), 2))


def staged(required: list[Requirement], seed: int = 0) -> Scenes:
    """A scene for each requirement that shows exactly what it asks for."""
    n = len(required)
    scene = scenes(seed, np.arange(n))
    count = np.array([len(r.wanted) for r in required])
    shape, colour, center = (a.copy() for a in (scene.shape, scene.colour, scene.center))
    towards = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
    for i, r in enumerate(required):
        for j, wanted in enumerate(r.wanted):
            shape[i, j] = SHAPES.index(wanted.form)
            if wanted.colour:
                colour[i, j] = tuple(COLOURS).index(wanted.colour)
        way = np.array(towards[r.relations[0][1]] if r.relations else (1, 0))
        corners = [way, -way, np.array([way[1], way[0]])] if count[i] > 1 else [np.zeros(2)]
        center[i, : count[i]] = 0.5 + 0.25 * np.stack(corners)[: count[i]]
    rgb = np.array(list(COLOURS.values()), float)[colour]
    size = np.full_like(scene.size, SIZES.index("small"))
    return replace(
        scene,
        count=count,
        shape=shape,
        colour=colour,
        center=center,
        rgb=rgb,
        size=size,
        radius=0 * scene.radius + 0.14,
    )


def test_prompts_cover_all_kinds_evenly_and_do_not_depend_on_how_many_they_are() -> None:
    asked = geneval_prompts(256)
    assert asked == geneval_prompts(256)
    assert asked[:100] == geneval_prompts(100)
    kinds = Counter(kind for kind, _ in asked)
    assert set(kinds) == set(KINDS)
    assert max(kinds.values()) - min(kinds.values()) <= 1
    for kind, every in KINDS.items():
        told = Counter(prompt for of, prompt in asked if of == kind)
        options = every()
        assert len(set(options)) == len(options)
        assert set(told) <= set(options)
        assert max(told.values()) - min(told[o] if len(options) <= sum(told.values()) else 1 for o in options) <= 1
        forms = {form for form in SHAPES if any(form in prompt for prompt in told)}
        assert forms == set(SHAPES)
    kind_of = {prompt: kind for kind, every in KINDS.items() for prompt in every()}
    assert len(kind_of) == sum(len(every()) for every in KINDS.values())  # no prompt is of two kinds


def test_every_prompt_says_what_its_kind_asks_for_in_words_of_captions() -> None:
    source = Shapes("val")
    words = {word.strip(",") for i in range(3000) for caption in source.captions(i) for word in caption.split()}
    n = {"single": 1, "two": 2, "counting": None, "colors": 1, "position": 2, "attribution": 2}
    for kind, every in KINDS.items():
        for prompt in every():
            assert set(prompt.split()) <= words
            required = requirement(prompt)
            assert required is not None
            assert len(required.wanted) == (n[kind] or {"two": 2, "three": 3}[prompt.split()[0]])
            assert required.exactly == (kind == "counting")
            assert bool(required.relations) == (kind == "position")
            assert all(bool(w.colour) == (kind in ("colors", "attribution")) for w in required.wanted)


def test_scenes_made_for_the_prompts_are_correct_and_shuffled_ones_near_chance() -> None:
    """With the shipped detector, one variant against the other; chance is what the true scenes say."""
    metric = GenEval(prompts=96)
    required = [requirement(prompt) for prompt in metric.prompts]
    scene = staged(required)
    true = things(scene)
    assert all(correct(image, r) for image, r in zip(true, required, strict=True))
    images = draw(scene, 32)
    shuffled = np.random.default_rng(0).permutation(96)
    statistics = metric.statistics()
    for rows in np.split(np.arange(96), 3):
        statistics.update(made(np.stack([images[rows], images[shuffled[rows]]]), [metric.prompts[i] for i in rows]))
    right, wrong = statistics.values()
    assert set(right) == set(metric.columns)
    assert right["geneval"] >= 0.97
    chance = np.mean([correct(true[j], r) for j, r in zip(shuffled, required, strict=True)])
    assert wrong["geneval"] == pytest.approx(chance, abs=0.03)
    assert chance < 0.25
    for values in (right, wrong):
        assert values["geneval"] == pytest.approx(np.mean([values[f"geneval_{kind}"] for kind in KINDS]))


def test_a_sample_that_is_not_finite_is_wrong_and_an_unseen_kind_has_no_score() -> None:
    metric = GenEval(prompts=6)
    images = draw(staged([requirement(prompt) for prompt in metric.prompts]), 32)[None]
    statistics = metric.statistics()
    statistics.update(made(images[:, :1], metric.prompts[:1]))
    (values,) = statistics.values()
    assert values["geneval_single"] == 1
    assert values["geneval"] is values["geneval_two"] is None
    statistics.update(made(images, metric.prompts, np.zeros((1, 6), bool)))
    (values,) = statistics.values()
    assert values["geneval_single"] == 0.5
    assert values["geneval"] == pytest.approx(0.5 / 6)


def test_fewer_prompts_than_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="prompts=5"):
        GenEval(prompts=5)


def test_identity_names_the_detector_and_how_many_prompts() -> None:
    one, other = GenEval(prompts=6), GenEval(prompts=12)
    assert one.identity != other.identity
    assert one.identity["detector"] == Attributes().identity["detector"]
    assert len(one.identity["detector"]["weights_sha256"]) == 64
    assert one.quality == Attributes().quality


@pytest.mark.parametrize("captions", ["terse", "mix"])
def test_attributes_of_held_out_images_are_right_and_of_shuffled_ones_near_chance(captions: str) -> None:
    source = Shapes("val", captions=captions)
    n = 128
    prompts, images = [source.prompt(i) for i in range(n)], source.images(range(n))
    statistics = Attributes().statistics()
    shuffled = np.roll(np.arange(n), 1)
    statistics.update(made(np.stack([images, images[shuffled]]), prompts))
    right, wrong = statistics.values()
    assert set(right) == set(Attributes.columns)
    for name in ("right_forms", "right_colours"):
        assert right[name] >= 0.98
        assert wrong[name] < 0.35
    if captions == "mix":
        assert min(right.values()) >= 0.98
        assert wrong["right_places"] < 0.6
    else:
        assert right["right_places"] is None  # terse captions name none


def test_captions_of_other_data_have_no_score() -> None:
    statistics = Attributes().statistics()
    statistics.update(made(np.zeros((2, 3, 3, 8, 8), np.uint8), ["cat", "dog", "a photo of a ship"]))
    assert statistics.values() == [dict.fromkeys(Attributes.columns)] * 2
