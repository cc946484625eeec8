"""Validation loss (paper, sec. 5.1): the mean squared error on the target at eight equally spaced times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowzoo.encoders.text import Text
from flowzoo.formulation.formulation import Coefficients, Formulation
from flowzoo.randomness import generator
from flowzoo.sampling.guidance import guided

# t = (i + 1/2)/8, ours: "eight equally spaced" without the ends, where EDM's sigma is 0 and infinite.
TIMES = tuple((i + 0.5) / 8 for i in range(8))


@dataclass(frozen=True)
class ValidationBatch:
    """The held-out images, their text and the one noise that every time, step and variant uses."""

    x0: Tensor  # [N, C, H, W], normalised
    text: Text
    eps: Tensor  # [N, C, H, W]

    @classmethod
    def of(cls, x0: Tensor, text: Text) -> "ValidationBatch":
        eps = torch.randn(x0.shape, generator=generator(0, 0, "validation")).to(x0.device)
        return cls(x0, text, eps)

    def chunks(self, size: int) -> Sequence["ValidationBatch"]:
        return [
            ValidationBatch(self.x0[i : i + size], self.text.rows(slice(i, i + size)), self.eps[i : i + size])
            for i in range(0, len(self.x0), size)
        ]


@torch.no_grad()
def validation_loss(
    backbone: Callable[[Tensor, Tensor, Text], Tensor], formulation: Formulation, batch: ValidationBatch, size: int
) -> dict[float, float]:
    """t -> mean((net - y)^2), unweighted, over the batch in pieces of `size`; the loss is the mean of the values."""
    totals = torch.zeros(len(TIMES), dtype=torch.float64, device=batch.x0.device)
    for part in batch.chunks(size):
        net = guided(backbone, part.text, None, 1.0)
        for i, t in enumerate(TIMES):
            times = torch.full((len(part.x0),), t, dtype=torch.float64, device=part.x0.device)
            c: Coefficients = formulation.at_t(times).image().to(part.x0.dtype)
            error = net(c.z(part.x0, part.eps), c) - c.target(part.x0, part.eps)
            totals[i] += error.double().square().mean(dim=(1, 2, 3)).sum()
    return dict(zip(TIMES, (totals / len(batch.x0)).tolist(), strict=True))
