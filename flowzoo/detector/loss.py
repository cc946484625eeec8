"""The loss that the detector learns by, and where in the map each object is read."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowzoo.detector.network import CELLS, cell_centers

SPREAD = 0.75  # cells: deviation of the heat around the middle of an object
_WARM = 0.2  # heat from which on a cell has to tell attributes


@dataclass(frozen=True)
class Truth:
    """What stands in n images, at most K objects in each."""

    there: Tensor  # bool [n, K]
    center: Tensor  # float32 [n, K, 2] x, y in image widths
    words: Tensor  # int64 [n, K, 3]: form, colour, size

    def targets(self) -> tuple[Tensor, Tensor, Tensor]:
        """Heat [n, 64], offset in cells [n, 64, 2] and words [n, 64, 3] of each cell: those of the nearest object."""
        cells = cell_centers(self.center.device).view(-1, 2)
        away = (self.center[:, None] - cells[:, None]) * CELLS  # [n, 64, K, 2]
        square = away.square().sum(-1).masked_fill(~self.there[:, None], torch.inf)
        least, nearest = square.min(-1)
        index = nearest[..., None, None]
        offset = away.gather(2, index.expand(-1, -1, -1, 2))[:, :, 0]
        words = self.words[:, None].expand(-1, len(cells), -1, -1).gather(2, index.expand(-1, -1, -1, 3))[:, :, 0]
        return torch.exp(-least / (2 * SPREAD**2)), offset, words


def loss(maps: dict[str, Tensor], truth: Truth) -> dict[str, Tensor]:
    """The terms of the loss, each [] float32; their sum is what training minimises.

    Heat is a number in 0..1 and learned as a probability. Attributes and offsets are told by all cells near an object,
    weighted by their heat, as any of them may turn out the peak.
    """
    heat, offset, words = truth.targets()
    flat = {name: values.flatten(2).mT for name, values in maps.items()}  # [n, 64, channels]
    weight = heat * (heat > _WARM)
    weight = weight / weight.sum().clamp(min=1)
    terms = {
        "heat": 8 * F.binary_cross_entropy_with_logits(flat["heat"][..., 0], heat),
        "offset": ((flat["offset"] - offset).abs().sum(-1).clamp(max=8) * weight).sum(),
    }
    for k, name in enumerate(("form", "colour", "size")):
        error = F.cross_entropy(flat[name].flatten(0, 1), words[..., k].flatten(), reduction="none")
        terms[name] = (error * weight.flatten()).sum()
    return terms
