"""The judge accepts every true scene and refuses one of which an attribute that its caption names is changed."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

import pytest

from flowzoo.data.scenes import COLOURS, GROUNDS, SHAPES, SIZES
from flowzoo.data.shapes import Shapes
from flowzoo.detector.thing import Thing, things
from flowzoo.metrics.claims import ATTRIBUTES, RELATIONS, Wanted, correct, kept_claims, placed, related, requirement

N = 400
WORDS = {"form": SHAPES, "colour": tuple(COLOURS), "size": SIZES}


@pytest.fixture(scope="module")
def world() -> list[tuple[tuple[str, str], list[Thing]]]:
    """Captions, terse and dense, and the true objects."""
    source = Shapes("val")
    return [(source.captions(i), image) for i, image in enumerate(things(source.scenes(range(N))))]


def test_every_caption_is_read_and_every_true_scene_accepted(world) -> None:
    for captions, image in world:
        for caption in captions:
            required = requirement(caption)
            assert required is not None, caption
            for order in permutations(image):
                assert correct(order, required), caption
            assert all(kept == claimed for kept, claimed in kept_claims(image, required).values())


def test_a_dense_caption_claims_all_of_every_object(world) -> None:
    for (_, dense), image in world:
        required = requirement(dense)
        named = sorted((w.form, w.colour, w.size) for w in required.wanted)
        assert named == sorted((t.form, t.colour, t.size) for t in image)
        assert (required.wanted[0].place is not None) == (len(image) == 1)


def changes(image: list[Thing], attribute: str) -> Iterator[list[Thing]]:
    """The scenes that differ in one attribute of one object."""
    for i, thing in enumerate(image):
        for word in WORDS[attribute]:
            if word != getattr(thing, attribute):
                yield [*image[:i], replace(thing, **{attribute: word}), *image[i + 1 :]]


@pytest.mark.parametrize("attribute", WORDS)
def test_one_changed_attribute_is_refused(world, attribute: str) -> None:
    for (_, dense), image in world:
        required = requirement(dense)
        whole = kept_claims(image, required)[attribute][1]
        for changed in changes(image, attribute):
            assert not correct(changed, required), (dense, changed)
            counts = kept_claims(changed, required)
            assert counts[attribute] == (whole - 1, whole)
            assert all(kept == claimed for name, (kept, claimed) in counts.items() if name != attribute)


def test_what_a_caption_leaves_out_is_not_judged(world) -> None:
    """A change is refused where no choice of objects is as the terse caption says, by brute force over its words."""
    for (terse, _), image in world:
        required = requirement(terse)
        for attribute in WORDS:
            for changed in changes(image, attribute):
                said = [(w.form, w.colour, w.size) for w in required.wanted]
                kept = any(
                    all(word in (None, seen) for words, t in zip(said, chosen, strict=True)
                        for word, seen in zip(words, (t.form, t.colour, t.size), strict=True))
                    for chosen in permutations(changed, len(said))
                )  # fmt: skip
                assert correct(changed, required) == kept, (terse, changed)


def test_a_missing_object_is_refused_and_so_is_one_more_of_a_number(world) -> None:
    for (terse, dense), image in world:
        for i in range(len(image)):
            assert not correct(image[:i] + image[i + 1 :], requirement(dense))
        if terse.startswith(("two", "three")):
            assert not correct([*image, image[0]], requirement(terse)), terse
            assert not correct([*image, image[0]], requirement(dense)), dense
            assert not correct(image[1:], requirement(terse))


def test_a_thing_elsewhere_is_refused(world) -> None:
    turned = [lambda x, y: (1 - x, 1 - y), lambda x, y: (y, 1 - x)]
    for (_, dense), image in world:
        required = requirement(dense)
        claims = kept_claims(image, required)["place"][1]
        middle = required.wanted[0].place == (0, 0)
        if not claims or middle:
            continue
        for turn in turned:
            moved = [replace(t, x=x, y=y) for t in image for x, y in [turn(t.x, t.y)]]
            half_turn_of_equals = required.exactly and turn is turned[0]
            assert correct(moved, required) == half_turn_of_equals, dense
        if len(image) == 1:
            centred = [replace(image[0], x=0.5, y=0.5)]
            assert not correct(centred, required)
            assert kept_claims(centred, required)["place"] == (0, 1)


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold_within_sixty_degrees(relation: str) -> None:
    towards = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}[relation]
    other = Thing("circle", "red", "small", 0.5, 0.5)
    for degrees in range(0, 360, 7):
        x, y = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        angle = math.degrees(math.acos(max(-1, min(1, x * towards[0] + y * towards[1]))))
        assert related(replace(other, x=0.5 + 0.3 * x, y=0.5 + 0.3 * y), relation, other) == (angle < 60)
    assert not related(other, relation, other)


def test_every_point_has_one_place() -> None:
    for i in range(21):
        for j in range(21):
            thing = Thing("circle", "red", "small", (i + 0.3) / 21.5, (j + 0.3) / 21.5)
            places = [(c, r) for c in (-1, 0, 1) for r in (-1, 0, 1) if placed(thing, (c, r))]
            assert len(places) == 1
            assert all(
                abs(0.5 + 0.25 * p - at) <= 0.125 or p for p, at in zip(places[0], (thing.x, thing.y), strict=True)
            )


def test_words_that_are_no_prompt_of_the_world_are_not_read() -> None:
    for text in (
        "",
        "a photo of a cat",
        "a red",
        "two circle",
        "two circles left of a square",
        "a circle and",
        "red",
        "a circle near a square",
        "circless",
    ):
        assert requirement(text) is None, text
    for ground in GROUNDS:
        assert requirement(f"picture of a red circle on {ground}").wanted == (Wanted("circle", "red"),)


def test_nothing_seen_keeps_nothing() -> None:
    required = requirement("a red circle left of a blue square")
    assert kept_claims([], required) == {"form": (0, 2), "colour": (0, 2), "size": (0, 0), "place": (0, 1)}
    assert set(ATTRIBUTES) == {"form", "colour", "size", "place"}
    assert not correct([], required)
