"""Packed projections of two streams to one sequence of queries, keys and values, for sequences of any length.

What comes before attention and after its derivative, each in one pass: bias, heads, RMS norm of queries and keys, and
the place in the joint sequence.
"""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import EPS, TRITON, summed, under_vmap

ROWS = 64  # tokens a program

if TRITON:
    import triton
    import triton.language as tl

    from flowzoo.backbones.fused.attention import _load, _norm_back, _normed, _part, _store

    @triton.jit
    def _join(
        qkv, bias, wq, wk, q, k, v, L, W, D, H, n, first_q, first_k, queries, keys,
        d: tl.constexpr, ROWS: tl.constexpr, Q: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        """One stream's tokens to places first_q and first_k on, of `queries` and `keys` in all."""
        head, i = tl.program_id(0) % H * d, (tl.program_id(0) // H).to(tl.int64)
        group = i // n
        row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
        own = D if Q else 0
        # The stores' masks know the stream's length alone; rows of the joint sequence are counted from its first.
        if Q:
            x, _ = _normed(_part(qkv, bias, i, group, row, L, W, head, d), wq, group, d, NORM, EPS)
            _store(q + (i * queries + first_q) * D, x, 0, row, L, D, head, d)
        x, _ = _normed(_part(qkv, bias, i, group, row, L, W, own + head, d), wk, group, d, NORM, EPS)
        _store(k + (i * keys + first_k) * D, x, 0, row, L, D, head, d)
        _store(
            v + (i * keys + first_k) * D,
            _part(qkv, bias, i, group, row, L, W, own + D + head, d),
            0,
            row,
            L,
            D,
            head,
            d,
        )

    @triton.jit
    def _apart(
        dy,
        x,
        weight,
        dqkv,
        sums,
        norm_sum,
        i,
        group,
        row,
        L,
        W,
        column,
        d: tl.constexpr,
        NORM: tl.constexpr,
        EPS: tl.constexpr,
    ):
        """From the gradient of normed queries or keys to that of the projection, and the sums over tokens."""
        _, r = _normed(x, weight, group, d, NORM, EPS)
        dx, dw = _norm_back(dy, x, r, weight, group, d, NORM)
        _store(dqkv, dx, i, row, L, W, column, d)
        tl.store(sums + column + tl.arange(0, d), tl.sum(dx, 0))
        tl.store(norm_sum + tl.arange(0, d), dw)

    @triton.jit
    def _join_backward(
        dq, dk, dv, qkv, bias, wq, wk, dqkv, sums, norm_sums, L, W, D, H, n, first_q, first_k, queries, keys,
        d: tl.constexpr, ROWS: tl.constexpr, Q: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        h, i, chunk = tl.program_id(0) % H, (tl.program_id(0) // H).to(tl.int64), tl.program_id(1)
        head, group = h * d, i // n
        row = chunk * ROWS + tl.arange(0, ROWS)
        own = D if Q else 0
        part = i * tl.num_programs(1) + chunk
        sums += part * W
        norm_sums += (part * H + h) * 2 * d
        if Q:
            dy = _load(dq + (i * queries + first_q) * D, 0, row, L, D, head, d).to(tl.float32)
            x = _part(qkv, bias, i, group, row, L, W, head, d)
            _apart(dy, x, wq, dqkv, sums, norm_sums, i, group, row, L, W, head, d, NORM, EPS)
        dy = _load(dk + (i * keys + first_k) * D, 0, row, L, D, head, d).to(tl.float32)
        x = _part(qkv, bias, i, group, row, L, W, own + head, d)
        _apart(dy, x, wk, dqkv, sums, norm_sums + d, i, group, row, L, W, own + head, d, NORM, EPS)
        dy = _load(dv + (i * keys + first_k) * D, 0, row, L, D, head, d).to(tl.float32)
        _store(dqkv, dy, i, row, L, W, own + D + head, d)
        tl.store(sums + own + D + head + tl.arange(0, d), tl.sum(dy, 0))


def _plan(
    qkv1: Tensor, qkv2: Tensor, norms: Tensor, heads: int, norm: bool
) -> list[tuple[tuple[int, int], dict[str, Any]]]:
    """Grid and sizes of each stream's launch."""
    width, n = qkv1.shape[-1] // 3, len(qkv1)
    queries = qkv1.shape[1] + (qkv2.shape[1] if qkv2.shape[-1] == 3 * width else 0)
    common = {"D": width, "H": heads, "n": n // len(norms), "queries": queries, "keys": qkv1.shape[1] + qkv2.shape[1]}
    made: list[tuple[tuple[int, int], dict[str, Any]]] = []
    for x, first in ((qkv1, 0), (qkv2, qkv1.shape[1])):
        grid = (heads * n, -(-x.shape[1] // ROWS))
        sizes = {"L": x.shape[1], "W": x.shape[-1], "first_q": first, "first_k": first, **common}
        flags = {"d": width // heads, "ROWS": ROWS, "Q": x.shape[-1] == 3 * width, "NORM": norm, "EPS": EPS}
        made.append((grid, sizes | flags))
    return made


@torch.library.custom_op("flowzoo::joined", mutates_args=())
def joined(
    qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor, heads: int, norm: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [N, L, heads, d] of both streams, the first one's tokens first.

    Arguments as `joint_attention` has them; L1 and L2 may be of any size. L of the queries is L1 where the second
    stream has none, else L1 + L2, as that of keys and values always is.
    """
    launches = _plan(qkv1, qkv2, norms, heads, norm)
    (_, sizes), d = launches[0], qkv1.shape[-1] // (3 * heads)
    q = qkv1.new_empty(len(qkv1), sizes["queries"], heads, d)
    k, v = (qkv1.new_empty(len(qkv1), sizes["keys"], heads, d) for _ in range(2))
    w = norms.transpose(0, 1).contiguous()
    for (grid, sizes), x, bias, at in zip(launches, (qkv1, qkv2), (bias1, bias2), (0, 2), strict=True):
        if x.shape[1]:
            _join[grid](x.contiguous(), bias.contiguous(), w[at], w[at + 1], q, k, v, **sizes)
    return q, k, v


@joined.register_fake
def _(
    qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor, heads: int, norm: bool
) -> tuple[Tensor, Tensor, Tensor]:
    n, length, width = len(qkv1), qkv1.shape[1], qkv1.shape[-1] // 3
    keys = length + qkv2.shape[1]
    queries = keys if qkv2.shape[-1] == 3 * width else length
    q = qkv1.new_empty(n, queries, heads, width // heads)
    k, v = (qkv1.new_empty(n, keys, heads, width // heads) for _ in range(2))
    return q, k, v


@torch.library.custom_op("flowzoo::joined_backward", mutates_args=())
def joined_backward(
    dq: Tensor, dk: Tensor, dv: Tensor, qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor,
    heads: int, norm: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv1, bias1, qkv2, bias2 and norms."""
    groups = len(norms)
    w = norms.transpose(0, 1).contiguous()
    dq, dk, dv = dq.contiguous(), dk.contiguous(), dv.contiguous()
    grads, biases, weights = [], [], []
    launches = _plan(qkv1, qkv2, norms, heads, norm)
    for (grid, sizes), x, bias, at in zip(launches, (qkv1, qkv2), (bias1, bias2), (0, 2), strict=True):
        dx = torch.empty_like(x, memory_format=torch.contiguous_format)
        sums = x.new_empty(len(x), grid[1], x.shape[-1], dtype=torch.float32)
        norm_sums = x.new_zeros(len(x), grid[1], heads, 2, sizes["d"], dtype=torch.float32)
        if x.shape[1]:
            _join_backward[grid](
                dq, dk, dv, x.contiguous(), bias.contiguous(), w[at], w[at + 1], dx, sums, norm_sums, **sizes
            )
        grads.append(dx)
        biases.append(summed(sums.sum(1), groups).to(bias.dtype))
        weights.append(summed(norm_sums.sum((1, 2)), groups))
    d_norms = torch.cat(weights, 1)
    return grads[0], biases[0], grads[1], biases[1], (d_norms if norm else torch.zeros_like(d_norms)).to(norms.dtype)


@joined_backward.register_fake
def _(
    dq: Tensor, dk: Tensor, dv: Tensor, qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor,
    heads: int, norm: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    a, b, c, d, e = (x.new_empty(x.shape) for x in (qkv1, bias1, qkv2, bias2, norms))
    return a, b, c, d, e


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.heads, ctx.norm = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> tuple[Any, ...]:
    return *joined_backward(dq, dk, dv, *ctx.saved_tensors, ctx.heads, ctx.norm), None, None


joined.register_autograd(_backward, setup_context=_setup)
joined.register_vmap(under_vmap(joined))
