"""A metric of your own: the kernel distance between samples and held-out images (Binkowski et al. 2018)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from flowzoo.metrics.metric import HeldOut, Made


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x.y/D + 1)^3 of every pair of features [n, D] and [m, D]: [n, m]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Without bias (eq. 4): pairs of an image with itself are left out."""
    within = [(kernel(z, z).sum() - kernel(z, z).diagonal().sum()) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(sum(within) - 2 * kernel(x, y).mean())


class KID:
    """`kid`, in the extractor's features, of all samples against all held-out images; lower is better."""

    columns: Mapping[str, Literal["min", "max"]] = {"kid": "min"}
    prompts: Sequence[str] | None = None  # those of the protocol
    identity: Mapping[str, Any] = {"name": "kid", "version": 1}
    quality: Mapping[str, Any] = {}

    def begin(self, held_out: HeldOut) -> str:
        """Called once; gives what the user should know before samples are made."""
        self.real = held_out.features().double()
        return ""

    def statistics(self) -> "Distances":
        """New ones for each setting."""
        return Distances(self.real)


class Distances:
    def __init__(self, real: Tensor) -> None:
        self.real = real
        self.seen: list[Tensor] = []

    def update(self, made: Made) -> None:
        """Batch by batch: `made.features` [M, n, D] of M variants."""
        self.seen.append(made.features.double())

    def values(self) -> list[dict[str, float | None]]:
        """Of each variant."""
        return [{"kid": squared_mmd(each, self.real)} for each in torch.cat(self.seen, 1)]
