"""How many of the forms, colours, sizes and places that captions of the procedural world name are right in images."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from flowzoo.detector.detector import Detector
from flowzoo.metrics.claims import ATTRIBUTES, Requirement, kept_claims, requirement
from flowzoo.metrics.metric import Made
from flowzoo.metrics.seen import seen

VERSION = 1  # of how captions are read and judged
_COLUMN = {attribute: f"right_{attribute}s" for attribute in ATTRIBUTES}


class Attributes:
    """Share of what captions say that is so, of each kind of attribute, over the prompts of the protocol.

    What a caption leaves out is not judged. Captions of another data set say nothing here, and have no score.
    """

    columns: Mapping[str, Literal["min", "max"]] = dict.fromkeys(_COLUMN.values(), "max")
    prompts = None

    def __init__(self, weights: str | Path | None = None) -> None:
        self.detector = Detector(weights)
        self.quality = self.detector.quality
        self.identity: dict[str, Any] = {"name": "attributes", "version": VERSION, "detector": self.detector.identity}

    def statistics(self) -> "Kept":
        return Kept(self.detector)


class Kept:
    """Claims that the images of each variant keep, and all claims, counted by attribute."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._counts: list[dict[str, tuple[int, int]]] = []

    def update(self, made: Made) -> None:
        required = [_requirement(prompt) for prompt in made.prompts]
        self._counts = self._counts or [dict.fromkeys(ATTRIBUTES, (0, 0)) for _ in made.images]
        for counts, images in zip(self._counts, seen(self._detector, made), strict=True):
            for wanted, things in zip(required, images, strict=True):
                if wanted is not None:
                    for attribute, (kept, claimed) in kept_claims(things, wanted).items():
                        before = counts[attribute]
                        counts[attribute] = before[0] + kept, before[1] + claimed

    def values(self) -> list[dict[str, float | None]]:
        """Of each variant; None for an attribute of which no prompt spoke."""
        return [
            {_COLUMN[attribute]: kept / claimed if claimed else None for attribute, (kept, claimed) in counts.items()}
            for counts in self._counts
        ]


@cache
def _requirement(prompt: str) -> Requirement | None:
    return requirement(prompt)
