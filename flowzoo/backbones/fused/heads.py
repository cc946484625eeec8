"""Heads of packed projections, biased and normed, and what both kinds of attention have in common."""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import TRITON, under_vmap

HEADS = (16, 32, 64)  # widths of a head
LOG2_E = 1.4426950408889634

if TRITON:
    import triton
    import triton.language as tl

    @triton.jit
    def _part(qkv, bias, i, group, row, L, W, column, d: tl.constexpr):
        """Rows of one of query, key and value of one head, its bias added, [T, d] in float32; 0 beyond L."""
        col = column + tl.arange(0, d)
        ok = (row < L)[:, None]
        x = tl.load(qkv + (i * L + row)[:, None] * W + col[None], mask=ok, other=0).to(tl.float32)
        return tl.where(ok, x + tl.load(bias + group * W + col).to(tl.float32)[None], 0)

    @triton.jit
    def _normed(x, weight, group, d: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr):
        """RMS norm and its factors [T, 1]; x itself without NORM. weight: one of the four of the first group."""
        if NORM:
            r = tl.rsqrt(tl.sum(x * x, 1) / d + EPS)[:, None]
            return x * r * tl.load(weight + group * 4 * d + tl.arange(0, d)).to(tl.float32)[None], r
        else:
            return x, x

    @triton.jit
    def _store(out, x, i, row, L, W, column, d: tl.constexpr):
        col = column + tl.arange(0, d)
        tl.store(out + (i * L + row)[:, None] * W + col[None], x, mask=(row < L)[:, None])

    @triton.jit
    def _load(x, i, row, L, W, column, d: tl.constexpr):
        col = column + tl.arange(0, d)
        return tl.load(x + (i * L + row)[:, None] * W + col[None], mask=(row < L)[:, None], other=0)

    @triton.jit
    def _norm_back(dy, x, r, weight, group, d: tl.constexpr, NORM: tl.constexpr):
        """Gradients of x and of the norm's weight [d]."""
        if NORM:
            xr = x * r
            g = dy * tl.load(weight + group * 4 * d + tl.arange(0, d)).to(tl.float32)[None]
            return r * (g - xr * (tl.sum(g * xr, 1)[:, None] / d)), tl.sum(dy * xr, 0)
        else:
            return dy, tl.sum(dy, 0)

    @triton.jit
    def _key_bias(bias, key, L, log2_scale):
        """What is added to a product of query and key, before it is scaled, for the scores of keys [K]."""
        return tl.load(bias + key, mask=key < L, other=0) * (1.4426950408889634 / log2_scale)


def outputs(qkv1: Tensor, qkv2: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """To be filled: outputs of both streams' queries, and logarithms of the sums of weights [N, heads, LQ]."""
    n, first, packed = qkv1.shape
    second = qkv2.shape[1] if qkv2.shape[-1] == packed else 0
    o1, o2 = (qkv1.new_empty(n, length, packed // 3) for length in (first, second))
    return o1, o2, qkv1.new_empty(n, heads, first + second, dtype=torch.float32)


def in_rows(key_bias: Tensor | None) -> Tensor | None:
    """As kernels read it; under vmap it is one row that stands for all."""
    return None if key_bias is None else key_bias.contiguous()


def with_way_back(op: Any, backward: Any) -> None:
    """For operators of both kinds of attention, whose first outputs are those of the streams: derivative, vmap's rule.

    backward(gradients of the two, *outputs, *inputs) gives the gradients of both projections, biases, and the norms;
    the keys' bias has none.
    """

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.heads, ctx.norm = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output, *tensors)

    def way_back(ctx: Any, do1: Tensor | None, do2: Tensor | None, *_: None) -> tuple[Any, ...]:
        o1, o2, *rest = ctx.saved_tensors
        do1, do2 = (torch.zeros_like(o) if do is None else do for do, o in ((do1, o1), (do2, o2)))
        return *backward(do1, do2, o1, o2, *rest, ctx.heads, ctx.norm), None, None, None

    @backward.register_fake
    def _(*args: Any) -> tuple[Tensor, ...]:
        *_, qkv1, bias1, qkv2, bias2, norms, _, _, _ = args
        return tuple(x.new_empty(x.shape) for x in (qkv1, bias1, qkv2, bias2, norms))

    op.register_autograd(way_back, setup_context=setup)
    op.register_vmap(under_vmap(op))
