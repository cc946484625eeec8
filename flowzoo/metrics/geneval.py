"""GenEval (Ghosh et al. 2023) on the procedural world: do images show the objects that their prompts ask for?

Its six kinds of prompts, in the words of terse captions; only relations are words of dense ones. A detector of our own
takes the place of Mask2Former and CLIP.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flowzoo.data.captions import article, plural
from flowzoo.data.scenes import COLOURS, SHAPES, uniforms
from flowzoo.detector.detector import Detector
from flowzoo.metrics.claims import NUMBERS, RELATIONS, Requirement, correct, requirement
from flowzoo.metrics.metric import Made
from flowzoo.metrics.seen import seen
from flowzoo.randomness import word

VERSION = 1  # of the prompts and of how they are judged
_PAIRS = list(permutations(SHAPES, 2))
# Every prompt of each kind. GenEval's names: single object, two object, counting, colors, position, color attribution.
KINDS: Mapping[str, Callable[[], list[str]]] = {
    "single": lambda: [article(form) for form in SHAPES],
    "two": lambda: [f"{article(one)} and {article(other)}" for one, other in _PAIRS],
    "counting": lambda: [f"{number} {plural(form)}" for number, form in product(NUMBERS, SHAPES)],
    "colors": lambda: [article(f"{colour} {form}") for colour, form in product(COLOURS, SHAPES)],
    "position": lambda: [f"{article(a)} {relation} {article(b)}" for relation, (a, b) in product(RELATIONS, _PAIRS)],
    "attribution": lambda: [
        f"{article(f'{c} {one}')} and {article(f'{d} {other}')}"
        for (c, d), (one, other) in product(permutations(COLOURS, 2), _PAIRS)
    ],
}


def geneval_prompts(n: int) -> list[tuple[str, str]]:
    """n pairs of a kind and a prompt, the kinds in turn; a kind's prompts in a fixed random order, over and over.

    The first ones are the same for every n.
    """
    orders = []
    for kind, every in KINDS.items():
        options = every()
        order = uniforms(word("geneval", kind), np.arange(len(options)), 1)[:, 0].argsort(kind="stable")
        orders.append([(kind, options[i]) for i in order])
    turns = ((orders[i % len(orders)], i // len(orders)) for i in range(n))
    return [options[turn % len(options)] for options, turn in turns]


class GenEval:
    """Share of correct images: of each kind of prompts, and the mean of the six (GenEval's overall score).

    A score is known no better than the detector sees, which is its `quality`.

    Raises:
        ValueError: fewer prompts than kinds.
        FileNotFoundError: no such file of weights.
    """

    columns: Mapping[str, Literal["min", "max"]] = dict.fromkeys(("geneval", *(f"geneval_{k}" for k in KINDS)), "max")

    def __init__(self, prompts: int = 256, weights: str | Path | None = None) -> None:
        if prompts < len(KINDS):
            raise ValueError(f"prompts={prompts} is out of range for geneval; allowed: {len(KINDS)} or more")
        self.detector = Detector(weights)
        asked = geneval_prompts(prompts)
        self.prompts: Sequence[str] = [prompt for _, prompt in asked]
        self._asked: dict[str, tuple[str, Requirement]] = {}
        for kind, prompt in asked:
            required = requirement(prompt)
            assert required is not None
            self._asked[prompt] = kind, required
        self.quality = self.detector.quality
        self.identity: dict[str, Any] = {
            "name": "geneval",
            "version": VERSION,
            "prompts": prompts,
            "detector": self.detector.identity,
        }

    def statistics(self) -> "Correct":
        return Correct(self.detector, self._asked)


class Correct:
    """Correct images of each variant and kind, counted."""

    def __init__(self, detector: Detector, asked: Mapping[str, tuple[str, Requirement]]) -> None:
        self._detector, self._asked = detector, asked
        self._right: list[dict[str, int]] = []
        self._all = dict.fromkeys(KINDS, 0)

    def update(self, made: Made) -> None:
        """Raises KeyError for a prompt that is not of this metric."""
        asked = [self._asked[prompt] for prompt in made.prompts]
        self._right = self._right or [dict.fromkeys(KINDS, 0) for _ in made.images]
        for kind, _ in asked:
            self._all[kind] += 1
        for right, images in zip(self._right, seen(self._detector, made), strict=True):
            for (kind, required), things in zip(asked, images, strict=True):
                right[kind] += correct(things, required)

    def values(self) -> list[dict[str, float | None]]:
        """Of each variant; None for a kind of which no image was seen."""
        return [self._shares(right) for right in self._right]

    def _shares(self, right: Mapping[str, int]) -> dict[str, float | None]:
        shares = {kind: right[kind] / n if n else None for kind, n in self._all.items()}
        told = [share for share in shares.values() if share is not None]
        overall = sum(told) / len(KINDS) if len(told) == len(KINDS) else None
        return {"geneval": overall} | {f"geneval_{kind}": share for kind, share in shares.items()}
