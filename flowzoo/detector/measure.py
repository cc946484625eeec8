"""How often the detector is right on held-out images of the world: whatever it judges is known no better."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from flowzoo.data.shapes import Shapes
from flowzoo.detector.thing import Thing, things

REACH = 0.125  # image widths: what is found farther than this from an object is not the object
PLACE = 0.05  # image widths within which a place is right
ATTRIBUTES = ("form", "colour", "size", "place")
_CHUNK = 1000


def matched(seen: Sequence[Thing], true: Sequence[Thing]) -> list[Thing | None]:
    """What was seen of each true object: one to one, with the least sum of distances, none beyond REACH."""
    found: list[Thing | None] = [None] * len(true)
    if seen and true:
        distance = np.hypot(
            *(np.subtract.outer([getattr(t, k) for t in true], [getattr(s, k) for s in seen]) for k in "xy")
        )
        for i, j in zip(*linear_sum_assignment(np.minimum(distance, 2 * REACH)), strict=True):
            found[i] = seen[j] if distance[i, j] <= REACH else None
    return found


def accuracy(seen: Sequence[Sequence[Thing]], true: Sequence[Sequence[Thing]]) -> dict[str, float]:
    """`count`: share of images with as many things as objects. ATTRIBUTES: share of all true objects that were found
    with this attribute right; one that was not found has none right."""
    pairs = [pair for s, t in zip(seen, true, strict=True) for pair in zip(t, matched(s, t), strict=True)]
    right = {
        name: np.mean([f is not None and getattr(f, name) == getattr(t, name) for t, f in pairs])
        for name in ("form", "colour", "size")
    }
    near = [f is not None and np.hypot(f.x - t.x, f.y - t.y) <= PLACE for t, f in pairs]
    count = np.mean([len(s) == len(t) for s, t in zip(seen, true, strict=True)])
    return {k: round(float(v), 5) for k, v in ({"count": count} | right | {"place": np.mean(near)}).items()}


def measure(
    detect: Callable[[Tensor], list[list[Thing]]],
    pixels: int,
    n: int,
    change: Callable[[Tensor], Tensor] = lambda images: images,
) -> dict[str, float]:
    """`accuracy` on the first n images of shapes' val split, uint8 [., 3, pixels, pixels], after `change`."""
    source = Shapes("val", image_size=pixels)
    seen: list[list[Thing]] = []
    for first in range(0, n, _CHUNK):
        seen += detect(change(torch.from_numpy(source.images(range(first, min(first + _CHUNK, n))))))
    return accuracy(seen, things(source.scenes(range(n))))
