"""Products with weights, one matrix a group."""

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import register


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


@torch.library.custom_op("flowzoo::product_backward", mutates_args=())
def product_backward(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight. That of the weight is written in the weight's layout, not transposed."""
    groups = len(weight)
    rows, grads = x.reshape(groups, -1, x.shape[-1]), dy.reshape(groups, -1, dy.shape[-1])
    if groups == 1:
        return (grads[0] @ weight[0]).view(x.shape), (grads[0].mT @ rows[0])[None]
    return torch.bmm(grads, weight).view(x.shape), torch.bmm(grads.mT, rows)


@product_backward.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


register(product, product_backward)
