"""Images of the procedural world to the things that they show."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowzoo.content import SHIPPED_DETECTOR, sha256_of
from flowzoo.data.scenes import SHAPES, SIZES
from flowzoo.detector.network import CELLS, PIXELS, cell_centers, load
from flowzoo.detector.thing import COLOUR_NAMES, Thing
from flowzoo.metrics.extractor import resize

THRESHOLD = 0.35  # heat of a peak that counts; the heat of an object that is surely there is 0.64 or more
APART = 0.15  # image widths: peaks nearer than this are one object
MOST_SEEN = 8  # objects told of an image


class Detector:
    """A network from a file of `flowzoo.detector.train`; by default the shipped one.

    `quality` is what it is known to achieve on held-out images, told beside whatever it judges; `identity` is all
    that decides what it sees.
    """

    def __init__(self, weights: str | Path | None = None, batch_size: int = 512) -> None:
        weights = SHIPPED_DETECTOR if weights is None else weights
        self.network, about = load(weights)
        self.quality: dict[str, Any] = about["quality"]
        self.identity: dict[str, Any] = {
            "name": "detector_shapes",
            "weights_sha256": sha256_of(weights),
            "threshold": THRESHOLD,
            "apart": APART,
            "most": MOST_SEEN,
        }
        self.batch_size = batch_size
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> "Detector":
        """Move in place, as a module does."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[list[Thing]]:
        """uint8 [n, 1 or 3, H, W] of any size to the things of each image, the surest first."""
        seen: list[list[Thing]] = []
        with torch.autocast(self.device.type, enabled=False):  # a training loop's bf16 must not leak into scores
            for chunk in images.split(self.batch_size):
                pixels = resize(chunk.to(self.device), PIXELS) / 255
                seen += read(self.network(pixels.contiguous(memory_format=torch.channels_last)))  # faster on a CPU
        return seen


def read(maps: dict[str, Tensor]) -> list[list[Thing]]:
    """The things in a network's maps: peaks of heat, the highest first, less all cells that point to the same place."""
    n = len(maps["heat"])
    heat = maps["heat"].sigmoid().flatten(1)
    place = cell_centers(heat.device).view(-1, 2) + maps["offset"].flatten(2).mT / CELLS  # [n, cells, 2]
    words = torch.stack([maps[name].flatten(2).argmax(1) for name in ("form", "colour", "size")], -1)
    rows = torch.arange(n, device=heat.device)
    found = []
    for _ in range(MOST_SEEN):
        height, cell = heat.max(1)
        middle = place[rows, cell]
        found.append(torch.cat([(height >= THRESHOLD)[:, None].double(), words[rows, cell], middle], 1))
        near = (place - middle[:, None]).norm(dim=-1) < APART
        near[rows, cell] = True
        heat.masked_fill_(near, 0)
    return [
        [
            Thing(SHAPES[int(form)], COLOUR_NAMES[int(colour)], SIZES[int(size)], x, y)
            for there, form, colour, size, x, y in image
            if there
        ]
        for image in torch.stack(found, 1).tolist()
    ]
