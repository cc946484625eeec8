"""What a prompt of the procedural world claims of its image, read from its words, and whether an image keeps it."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from flowzoo.data.scenes import COLOURS, SHAPES, SIZES
from flowzoo.detector.thing import Thing

NUMBERS = {"two": 2, "three": 3}
LEFT, ABOVE = "left of", "above"
RELATIONS = (LEFT, "right of", ABOVE, "below")
_ROWS, _COLUMNS = {"top": -1, "bottom": 1}, {"left": -1, "right": 1}
_STEP = 0.25  # image widths between the places that captions name (flowzoo/data/scenes.py)
_ALONG = 0.5  # least share of the way between two middles that lies along a relation's axis


@dataclass(frozen=True)
class Wanted:
    """An object that a prompt names; None where the prompt leaves an attribute out.

    place: column and row of the 3 x 3 places, each -1, 0 or 1.
    """

    form: str
    colour: str | None = None
    size: str | None = None
    place: tuple[int, int] | None = None


@dataclass(frozen=True)
class Requirement:
    """Objects that an image must show. relations: (i, relation, j) of `wanted` i and j. exactly: no further object is
    as `wanted[0]` is described."""

    wanted: tuple[Wanted, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    exactly: bool = False


def _thing(n: int) -> str:
    words = (("size", SIZES, "? ?"), ("colour", COLOURS, "? ?"), ("form", SHAPES, ""))
    return "".join(f"(?P<{name}{n}>{'|'.join(options)}){rest}" for name, options, rest in words)


_GRAMMAR = re.compile(
    "(?:(?:picture|drawing) of )?"
    f"(?:(?P<number>{'|'.join(NUMBERS)}) |an? )?{_thing(0)}(?P<plural>e?s)?"
    "(?P<axis> side by side| one above the other)?"
    "(?: in the (?P<middle>center)| at the (?P<row>top|bottom)?(?: ?(?P<column>left|right))?)?"
    f"(?: (?P<relation1>{'|'.join(RELATIONS)}) an? {_thing(1)})?"
    f"(?: and (?:(?P<relation2>{'|'.join(RELATIONS)}) )?an? {_thing(2)})?"
    "(?:(?: on| of|,) .+)?"  # the ground
)


def requirement(prompt: str) -> Requirement | None:
    """What the image of a caption or a GenEval prompt must show. The ground and the medium are not judged.

    None for a text that is no prompt of this world.
    """
    said = _GRAMMAR.fullmatch(prompt)
    if said is None or bool(said["plural"]) < bool(said["number"]):
        return None

    def wanted(n: int, place: tuple[int, int] | None = None) -> Wanted:
        return Wanted(said[f"form{n}"], said[f"colour{n}"], said[f"size{n}"], place)

    if said["plural"]:
        if said["form1"] or said["form2"]:
            return None
        number = NUMBERS.get(said["number"], 2)
        axis = {" side by side": ((0, LEFT, 1),), " one above the other": ((0, ABOVE, 1),)}.get(said["axis"], ())
        return Requirement((wanted(0),) * number, axis, exactly=said["number"] is not None)
    place = None
    if said["middle"] or said["row"] or said["column"]:
        place = _COLUMNS.get(said["column"], 0), _ROWS.get(said["row"], 0)
    objects, relations = [wanted(0, place)], []
    for n in (1, 2):
        if said[f"form{n}"]:
            if said[f"relation{n}"]:
                relations.append((0, said[f"relation{n}"], len(objects)))
            objects.append(wanted(n))
    return Requirement(tuple(objects), tuple(relations))


def related(one: Thing, relation: str, other: Thing) -> bool:
    """Whether `one` is `relation` `other`: the way between their middles points there within 60 degrees.

    As GenEval (Ghosh et al. 2023), but without its margin of a tenth of both boxes, since things here do not overlap.
    """
    x, y = one.x - other.x, one.y - other.y
    along = {LEFT: -x, "right of": x, ABOVE: -y, "below": y}[relation]
    return along > _ALONG * (x * x + y * y) ** 0.5


def placed(thing: Thing, place: tuple[int, int]) -> bool:
    """Whether `thing` is nearer to this one of the 3 x 3 places than to any other."""
    return all(
        round(max(-1, min(1, (at - 0.5) / _STEP))) == there for at, there in zip((thing.x, thing.y), place, strict=True)
    )


# The attributes of an object and how they are judged, given what was seen and what was said.
ATTRIBUTES: Mapping[str, Callable[[Thing, Wanted], bool]] = {
    "form": lambda seen, said: seen.form == said.form,
    "colour": lambda seen, said: seen.colour == said.colour,
    "size": lambda seen, said: seen.size == said.size,
    "place": lambda seen, said: said.place is not None and placed(seen, said.place),
}


def _verdicts(seen: Sequence[Thing | None], required: Requirement) -> Iterator[tuple[str, bool]]:
    """Every claim of `required` as (attribute, kept), where `seen[i]` stands for `wanted[i]`; None: it is not there."""
    for thing, said in zip(seen, required.wanted, strict=True):
        for attribute, kept in ATTRIBUTES.items():
            if getattr(said, attribute) is not None:
                yield attribute, thing is not None and kept(thing, said)
    for i, relation, j in required.relations:
        one, other = seen[i], seen[j]
        yield "place", one is not None and other is not None and related(one, relation, other)


def _choices(objects: Sequence[Thing], required: Requirement) -> Iterator[tuple[Thing | None, ...]]:
    """All ways to take a different object for each wanted one; None stands for what is too few."""
    n = len(required.wanted)
    return permutations([*objects, *[None] * (n - len(objects))], n)


def correct(objects: Sequence[Thing], required: Requirement) -> bool:
    """Whether the objects of an image keep everything that its prompt claims."""
    if required.exactly:
        alike = sum(all(kept for _, kept in _verdicts([thing], Requirement(required.wanted[:1]))) for thing in objects)
        if alike != len(required.wanted):
            return False
    return any(all(kept for _, kept in _verdicts(seen, required)) for seen in _choices(objects, required))


def kept_claims(objects: Sequence[Thing], required: Requirement) -> dict[str, tuple[int, int]]:
    """Of each attribute: how many of the prompt's claims an image keeps, and how many there are.

    Objects are taken for the wanted ones in the way that keeps most claims; an object that is missing keeps none.
    """
    best = max(
        (list(_verdicts(seen, required)) for seen in _choices(objects, required)), key=lambda v: sum(k for _, k in v)
    )
    return {
        attribute: (sum(kept for name, kept in best if name == attribute), sum(name == attribute for name, _ in best))
        for attribute in ATTRIBUTES
    }
