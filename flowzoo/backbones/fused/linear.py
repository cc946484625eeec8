"""Products with weights, one matrix a group."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import under_vmap


@torch.library.custom_op("flowzoo::product", mutates_args=())
def product(x: Tensor, weight: Tensor) -> Tensor:
    """x [N, ..., in] with weight [G, out, in] -> [N, ..., out], no bias: N/G samples a group."""
    groups = len(weight)
    if groups == 1:
        return x @ weight[0].mT
    return torch.bmm(x.reshape(groups, -1, x.shape[-1]), weight.mT).view(*x.shape[:-1], -1)


@product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[1])


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None]:
    """That of the weight is computed in the weight's layout, not transposed; None where it went to its place."""
    x, weight = ctx.saved_tensors
    groups = len(weight)
    rows, grads = x.reshape(groups, -1, x.shape[-1]), dy.reshape(groups, -1, dy.shape[-1])
    dx = (grads[0] @ weight[0]).view(x.shape) if groups == 1 else torch.bmm(grads, weight).view(x.shape)
    place = _places.of(weight) if _places is not None else None
    if place is None:
        return dx, (grads[0].mT @ rows[0])[None] if groups == 1 else torch.bmm(grads.mT, rows)
    if groups == 1:
        torch.mm(grads[0].mT, rows[0], out=place[0])
    else:
        torch.bmm(grads.mT, rows, out=place)
    return dx, None


product.register_autograd(_backward, setup_context=_setup)
product.register_vmap(under_vmap(product))


class _Places:
    def __init__(self, weights: Sequence[Tensor], places: Sequence[Tensor]) -> None:
        self.known = {_identity(w): (i, place) for i, (w, place) in enumerate(zip(weights, places, strict=True))}
        self.written: set[int] = set()

    def of(self, weight: Tensor) -> Tensor | None:
        """None for a tensor that is no such weight, or has been here before: there its gradients must be added up."""
        i, place = self.known.get(_identity(weight), (-1, None))
        if i in self.written:
            return None
        if place is not None:
            self.written.add(i)
        return place


def _identity(x: Tensor) -> tuple[int, torch.Size]:
    """The same for every tensor that is the whole of the same memory: autograd and vmap make new ones."""
    return x.data_ptr(), x.shape


_places: _Places | None = None


@contextmanager
def gradients_in(weights: Sequence[Tensor], places: Sequence[Tensor]) -> Iterator[set[int]]:
    """Backward passes write the gradients of products' weights [G, out, in] into their places, one a weight, and give
    none: a pass over memory less than to copy them there. Gives the numbers of those that were written; what else is
    done with such a weight gives gradients, to be added.
    """
    global _places
    before, _places = _places, _Places(weights, places)
    try:
        yield _places.written
    finally:
        _places = before
