"""Validation loss (paper, sec. 5.1): the mean squared error on the target at eight equally spaced times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowzoo.encoders.text import Text
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.randomness import generator
from flowzoo.sampling.guidance import guided

# t = (i + 1/2)/8, ours: "eight equally spaced" without the ends, where EDM's sigma is 0 and infinite.
TIMES = tuple((i + 0.5) / 8 for i in range(8))


@dataclass(frozen=True)
class ValidationBatch:
    """The held-out images, their text and the one noise that every time, step and variant uses."""

    x0: Tensor  # [N, ...], normalised
    text: Text
    eps: Tensor  # as x0

    @classmethod
    def of(cls, x0: Tensor, text: Text) -> "ValidationBatch":
        eps = torch.randn(x0.shape, generator=generator(0, 0, "validation")).to(x0)
        return cls(x0, text.to(x0.device, x0.dtype), eps)

    def chunks(self, size: int) -> Sequence["ValidationBatch"]:
        return [
            ValidationBatch(self.x0[i : i + size], self.text.rows(slice(i, i + size)), self.eps[i : i + size])
            for i in range(0, len(self.x0), size)
        ]


@torch.no_grad()
def validation_loss(
    backbone: Callable[[Tensor, Tensor, Text], Tensor],
    formulation: Formulation | StackedFormulation,
    batch: ValidationBatch,
    size: int,
) -> Tensor:
    """mean((net - y)^2), unweighted, at each of `TIMES` over the batch in pieces of `size`; the loss is their mean.

    float64 [8], or [V, 8] for a stack of V.
    """
    totals: list[Tensor] = []
    for part in batch.chunks(size):
        sums = []
        for t in TIMES:
            times = torch.full((len(part.x0),), t, dtype=torch.float64, device=part.x0.device)
            record = formulation.at_t(times).to(part.x0.dtype)
            lead = record.t.ndim  # [B], of a stack [V, B]
            c = record.expand_to(part.x0.expand(*record.t.shape, *part.x0.shape[1:]))
            net = guided(backbone, part.text, None, 1.0, lead)
            error = net(c.z(part.x0, part.eps), c) - c.target(part.x0, part.eps)
            sums.append(error.double().square().flatten(lead).mean(-1).sum(-1))
        totals.append(torch.stack(sums, dim=-1))
    return torch.stack(totals).sum(0) / len(batch.x0)
