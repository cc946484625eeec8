"""The detector's network and its file: 32 px images to a grid of 8 x 8 cells that say what stands there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowzoo.data.scenes import COLOURS, SHAPES, SIZES
from flowzoo.network_file import DETECTOR, load_network, save_network

PIXELS = 32  # of the images that the network sees
CELLS = 8  # along each side
HEADS = {"heat": 1, "offset": 2, "form": len(SHAPES), "colour": len(COLOURS), "size": len(SIZES)}  # channels


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.norm_one = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.two, self.norm_two = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_one(self.one(x)).relu()
        return (x + self.norm_two(self.two(h))).relu()


class Network(nn.Module):
    """Residual blocks at half and at a quarter of the resolution, then one linear read-out a cell.

    As CenterNet (Zhou et al. 2019): a map of heat with a peak at the middle of each object, whose attributes and exact
    place are read at the peak.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        """Channels and blocks at half and at a quarter of the resolution."""
        super().__init__()
        self.architecture = {"widths": list(widths), "blocks": list(blocks)}
        fine, coarse = widths
        self.layers = nn.Sequential(
            nn.Conv2d(3, fine, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(fine),
            nn.ReLU(),
            *(Block(fine) for _ in range(blocks[0])),
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(coarse),
            nn.ReLU(),
            *(Block(coarse) for _ in range(blocks[1])),
            nn.Conv2d(coarse, sum(HEADS.values()), 1),
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float32 [n, 3, 32, 32] in 0..1 to a map [n, channels, 8, 8] for each of HEADS, float32.

        heat, form, colour and size are logits; offset is the way from the cell's middle to the object's, x and y in
        cells.
        """
        maps = self.layers((images - 0.5) / 0.25).float()
        return dict(zip(HEADS, maps.split(list(HEADS.values()), 1), strict=True))


def cell_centers(device: torch.device) -> Tensor:
    """float32 [8, 8, 2]: x, y of the middle of the cell in row i and column j, in image widths."""
    axis = (torch.arange(CELLS, device=device) + 0.5) / CELLS
    return torch.stack([axis.expand(CELLS, CELLS), axis[:, None].expand(CELLS, CELLS)], -1)


def save(network: Network, path: Path, about: Mapping[str, Any]) -> None:
    """As `save_network`."""
    save_network(network, path, DETECTOR, architecture=network.architecture, about=about)


def load(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """As `load_network`. Raises FileNotFoundError and ValueError."""
    network, about = load_network(path, DETECTOR, lambda architecture: Network(**architecture))
    return cast(Network, network), about
