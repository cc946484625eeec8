"""Products with weights, one matrix a group."""

from collections.abc import Iterator
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
    """Where the gradients of weights go that are parts of one tensor: to the same parts of another."""

    def __init__(self, weights: Tensor, gradient: Tensor) -> None:
        self.storage = weights.untyped_storage().data_ptr()
        self.shift = gradient.storage_offset() - weights.storage_offset()
        self.gradient = gradient
        self.written: set[int] = set()

    def of(self, weight: Tensor) -> Tensor | None:
        """None for a weight that is not such a part, or has been here before: there its gradients must be added up."""
        at = int(weight.storage_offset())
        if weight.untyped_storage().data_ptr() != self.storage or at in self.written:
            return None
        self.written.add(at)
        return self.gradient.as_strided(weight.shape, weight.stride(), at + self.shift)


_places: _Places | None = None


@contextmanager
def gradients_in(weights: Tensor, gradient: Tensor) -> Iterator[set[int]]:
    """Backward passes write the gradients of products' weights that are parts of `weights` into those of `gradient`,
    and give none: a pass over memory less than to gather them. Gives the offsets in `weights` of what was written;
    other uses of these weights give gradients, to be added.
    """
    global _places
    before, _places = _places, _Places(weights, gradient)
    try:
        yield _places.written
    finally:
        _places = before
