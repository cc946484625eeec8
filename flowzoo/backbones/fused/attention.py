"""Attention over one stream of tokens or two joined ones, from packed projections to packed gradients.

For short sequences: one program holds all queries, keys and values of one head of one sample. It adds the bias, takes
the RMS norm of queries and keys, and keeps nothing for the way back but what it was given. Streams are never joined in
memory.
"""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import EPS, TRITON, power_of_two, summed, under_vmap

LONGEST = 128  # tokens of a stream

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
        """RMS norm and its factors [T, 1]; x itself without NORM."""
        if NORM:
            r = tl.rsqrt(tl.sum(x * x, 1) / d + EPS)[:, None]
            return x * r * tl.load(weight + group * d + tl.arange(0, d)).to(tl.float32)[None], r
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
    def _scores(q, k, L, scale, T: tl.constexpr):
        """q k^T with keys beyond L at minus infinity."""
        return tl.where((tl.arange(0, T) < L)[None], tl.dot(q, tl.trans(k)) * scale, float("-inf"))

    @triton.jit
    def _out(q, k1, k2, v1, v2, L1, L2, scale, T1: tl.constexpr, T2: tl.constexpr, TWO: tl.constexpr):
        """softmax(q k^T) v over the keys of both streams."""
        s1 = _scores(q, k1, L1, scale, T1)
        m = tl.max(s1, 1)
        if TWO:
            s2 = _scores(q, k2, L2, scale, T2)
            m = tl.maximum(m, tl.max(s2, 1))
        p1 = tl.exp(s1 - m[:, None])
        total = tl.sum(p1, 1)
        o = tl.dot(p1.to(v1.dtype), v1)
        if TWO:
            p2 = tl.exp(s2 - m[:, None])
            total += tl.sum(p2, 1)
            o += tl.dot(p2.to(v2.dtype), v2)
        return o / total[:, None]

    @triton.jit
    def _query_side(q, g, k1, k2, v1, v2, L1, L2, scale, T1: tl.constexpr, T2: tl.constexpr, TWO: tl.constexpr):
        """Gradient of queries, and of every softmax its maximum, its sum, and its weights' mean gradient."""
        s1 = _scores(q, k1, L1, scale, T1)
        m = tl.max(s1, 1)
        if TWO:
            s2 = _scores(q, k2, L2, scale, T2)
            m = tl.maximum(m, tl.max(s2, 1))
        p1 = tl.exp(s1 - m[:, None])
        total = tl.sum(p1, 1)
        dp1 = tl.dot(g, tl.trans(v1))
        mean = tl.sum(p1 * dp1, 1)
        if TWO:
            p2 = tl.exp(s2 - m[:, None])
            total += tl.sum(p2, 1)
            dp2 = tl.dot(g, tl.trans(v2))
            mean += tl.sum(p2 * dp2, 1)
        mean = mean / total
        factor = (scale / total)[:, None]
        dq = tl.dot((p1 * (dp1 - mean[:, None]) * factor).to(q.dtype), k1)
        if TWO:
            dq += tl.dot((p2 * (dp2 - mean[:, None]) * factor).to(q.dtype), k2)
        return dq, m, total, mean

    @triton.jit
    def _key_side(k, v, q, g, m, total, mean, L, scale, T: tl.constexpr):
        """What queries add to the gradients of keys and values. All transposed: nothing changes its place."""
        s = tl.where((tl.arange(0, T) < L)[:, None], tl.dot(k, tl.trans(q)) * scale, float("-inf"))
        p = tl.exp(s - m[None]) / total[None]
        ds = p * (tl.dot(v, tl.trans(g)) - mean[None]) * scale
        return tl.dot(ds.to(k.dtype), q), tl.dot(p.to(k.dtype), g)

    @triton.jit
    def _norm_back(dy, x, r, weight, group, d: tl.constexpr, NORM: tl.constexpr):
        """Gradients of x and of the norm's weight [d]."""
        if NORM:
            xr = x * r
            g = dy * tl.load(weight + group * d + tl.arange(0, d)).to(tl.float32)[None]
            return r * (g - xr * (tl.sum(g * xr, 1)[:, None] / d)), tl.sum(dy * xr, 0)
        else:
            return dy, tl.sum(dy, 0)

    @triton.jit
    def _keys_and_values(
        qkv, bias, i, group, L, W, first, head, D, weight,
        T: tl.constexpr, d: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        """Keys, their norms' factors, and values of one stream, whose columns of keys begin at `first`."""
        row = tl.arange(0, T)
        k, r = _normed(_part(qkv, bias, i, group, row, L, W, first + head, d), weight, group, d, NORM, EPS)
        v = _part(qkv, bias, i, group, row, L, W, first + D + head, d)
        return k.to(qkv.dtype.element_ty), r, v.to(qkv.dtype.element_ty)

    @triton.jit
    def _give(
        dy, r, qkv, bias, weight, dqkv, sums, place, i, group, L, W, column,
        T: tl.constexpr, d: tl.constexpr, NORM: tl.constexpr,
    ):  # fmt: skip
        """Stores the gradient of queries or keys before their norm; its sum over tokens, the bias's; and the norm's."""
        row = tl.arange(0, T)
        # read again: to hold it until here would cost registers
        x = _part(qkv, bias, i, group, row, L, W, column, d)
        dx, dw = _norm_back(dy, x, r, weight, group, d, NORM)
        _store(dqkv, dx, i, row, L, W, column, d)
        tl.store(sums + i * W + column + tl.arange(0, d), tl.sum(dx, 0))
        tl.store(place, dw)

    @triton.jit
    def _give_values(dv, dqkv, sums, i, L, W, column, T: tl.constexpr, d: tl.constexpr):
        _store(dqkv, dv, i, tl.arange(0, T), L, W, column, d)
        tl.store(sums + i * W + column + tl.arange(0, d), tl.sum(dv, 0))

    @triton.jit
    def _attention_forward(
        qkv1, bias1, qkv2, bias2, wq1, wk1, wq2, wk2, o1, o2, L1, L2, W1, W2, D, H, n, scale,
        T1: tl.constexpr, T2: tl.constexpr, d: tl.constexpr,
        TWO: tl.constexpr, Q2: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        head, i = tl.program_id(0) % H * d, (tl.program_id(0) // H).to(tl.int64)
        group = i // n
        kind = qkv1.dtype.element_ty
        row1, row2 = tl.arange(0, T1), tl.arange(0, T2)
        k1, _, v1 = _keys_and_values(qkv1, bias1, i, group, L1, W1, D, head, D, wk1, T1, d, NORM, EPS)
        k2 = k1
        v2 = v1
        if TWO:
            first = D if Q2 else 0  # a stream without queries begins with its keys
            k2, _, v2 = _keys_and_values(qkv2, bias2, i, group, L2, W2, first, head, D, wk2, T2, d, NORM, EPS)
        q1, _ = _normed(_part(qkv1, bias1, i, group, row1, L1, W1, head, d), wq1, group, d, NORM, EPS)
        _store(o1, _out(q1.to(kind), k1, k2, v1, v2, L1, L2, scale, T1, T2, TWO), i, row1, L1, D, head, d)
        if Q2:
            q2, _ = _normed(_part(qkv2, bias2, i, group, row2, L2, W2, head, d), wq2, group, d, NORM, EPS)
            _store(o2, _out(q2.to(kind), k1, k2, v1, v2, L1, L2, scale, T1, T2, TWO), i, row2, L2, D, head, d)

    @triton.jit
    def _attention_backward(
        do1, do2, qkv1, bias1, qkv2, bias2, wq1, wk1, wq2, wk2, dqkv1, dqkv2, sums1, sums2, norm_sums,
        L1, L2, W1, W2, D, H, n, scale,
        T1: tl.constexpr, T2: tl.constexpr, d: tl.constexpr,
        TWO: tl.constexpr, Q2: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        head, i = tl.program_id(0) % H * d, (tl.program_id(0) // H).to(tl.int64)
        group = i // n
        kind = qkv1.dtype.element_ty
        row1, row2 = tl.arange(0, T1), tl.arange(0, T2)
        place = norm_sums + (i * H * d + head) * 4 + tl.arange(0, d)
        k1, rk1, v1 = _keys_and_values(qkv1, bias1, i, group, L1, W1, D, head, D, wk1, T1, d, NORM, EPS)
        k2 = k1
        v2 = v1
        if TWO:
            first = D if Q2 else 0
            k2, rk2, v2 = _keys_and_values(qkv2, bias2, i, group, L2, W2, first, head, D, wk2, T2, d, NORM, EPS)
        q1, rq1 = _normed(_part(qkv1, bias1, i, group, row1, L1, W1, head, d), wq1, group, d, NORM, EPS)
        q1, g1 = q1.to(kind), _load(do1, i, row1, L1, D, head, d)
        dq, m1, total1, mean1 = _query_side(q1, g1, k1, k2, v1, v2, L1, L2, scale, T1, T2, TWO)
        _give(dq, rq1, qkv1, bias1, wq1, dqkv1, sums1, place, i, group, L1, W1, head, T1, d, NORM)
        dk, dv = _key_side(k1, v1, q1, g1, m1, total1, mean1, L1, scale, T1)
        if Q2:
            q2, rq2 = _normed(_part(qkv2, bias2, i, group, row2, L2, W2, head, d), wq2, group, d, NORM, EPS)
            q2, g2 = q2.to(kind), _load(do2, i, row2, L2, D, head, d)
            dq, m2, total2, mean2 = _query_side(q2, g2, k1, k2, v1, v2, L1, L2, scale, T1, T2, TWO)
            _give(dq, rq2, qkv2, bias2, wq2, dqkv2, sums2, place + 2 * d, i, group, L2, W2, head, T2, d, NORM)
            more_k, more_v = _key_side(k1, v1, q2, g2, m2, total2, mean2, L1, scale, T1)
            dk += more_k
            dv += more_v
        _give(dk, rk1, qkv1, bias1, wk1, dqkv1, sums1, place + d, i, group, L1, W1, D + head, T1, d, NORM)
        _give_values(dv, dqkv1, sums1, i, L1, W1, 2 * D + head, T1, d)
        if TWO:
            dk, dv = _key_side(k2, v2, q1, g1, m1, total1, mean1, L2, scale, T2)
            if Q2:
                more_k, more_v = _key_side(k2, v2, q2, g2, m2, total2, mean2, L2, scale, T2)
                dk += more_k
                dv += more_v
            _give(
                dk, rk2, qkv2, bias2, wk2, dqkv2, sums2, place + 3 * d, i, group, L2, W2, first + head, T2, d, NORM
            )  # fmt: skip
            _give_values(dv, dqkv2, sums2, i, L2, W2, first + D + head, T2, d)


def _sizes(qkv1: Tensor, qkv2: Tensor, weights: Tensor, heads: int, norm: bool) -> dict[str, Any]:
    width = qkv1.shape[-1] // 3
    two, queries = qkv2.shape[1] > 0, qkv2.shape[-1] == 3 * width
    t1, t2 = (max(16, power_of_two(x.shape[1])) for x in (qkv1, qkv2 if two else qkv1))
    return {
        **{"L1": qkv1.shape[1], "L2": qkv2.shape[1], "W1": qkv1.shape[-1], "W2": qkv2.shape[-1], "D": width},
        "H": heads,
        **{"n": len(qkv1) // len(weights), "scale": (width // heads) ** -0.5, "T1": t1, "T2": t2, "d": width // heads},
        **{"TWO": two, "Q2": two and queries, "NORM": norm, "EPS": EPS},
        "num_warps": 4 if t1 <= 64 else 8,
    }


@torch.library.custom_op("flowzoo::joint_attention", mutates_args=())
def joint_attention(
    qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor, heads: int, norm: bool
) -> tuple[Tensor, Tensor]:
    """Attention over all tokens of both streams; -> [N, L1, D] and [N, L2, D].

    qkv1 [N, L1, 3 D] and bias1 [G, 3 D], query, key and value packed in this order; qkv2 and bias2 likewise, or without
    queries, 2 D wide (the second output is then not to be used), or of no tokens, L2 = 0. norms [G, 4, D / heads]:
    weights of the RMS norms of query and key of the first stream, then of the second; not read where `norm` is False.
    L1 and L2 at most `LONGEST`.
    """
    o1 = qkv1.new_empty(*qkv1.shape[:2], qkv1.shape[-1] // 3)
    o2 = qkv2.new_empty(*qkv2.shape[:2], qkv1.shape[-1] // 3)
    sizes = _sizes(qkv1, qkv2, norms, heads, norm)
    w = norms.transpose(0, 1).contiguous()  # [4, G, d]
    _attention_forward[(heads * len(qkv1),)](
        qkv1.contiguous(), bias1.contiguous(), qkv2.contiguous(), bias2.contiguous(), *w.unbind(0), o1, o2, **sizes
    )
    return o1, o2


@joint_attention.register_fake
def _(
    qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor, heads: int, norm: bool
) -> tuple[Tensor, Tensor]:
    width = qkv1.shape[-1] // 3
    return qkv1.new_empty(*qkv1.shape[:2], width), qkv2.new_empty(*qkv2.shape[:2], width)


@torch.library.custom_op("flowzoo::joint_attention_backward", mutates_args=())
def joint_attention_backward(
    do1: Tensor, do2: Tensor, qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor,
    heads: int, norm: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv1, bias1, qkv2, bias2 and norms."""
    n, groups = len(qkv1), len(norms)
    dqkv1 = torch.empty_like(qkv1, memory_format=torch.contiguous_format)
    dqkv2 = torch.empty_like(qkv2, memory_format=torch.contiguous_format)
    sums1 = qkv1.new_empty(n, qkv1.shape[-1], dtype=torch.float32)
    sums2 = qkv2.new_zeros(n, qkv2.shape[-1], dtype=torch.float32)
    sizes = _sizes(qkv1, qkv2, norms, heads, norm)
    norm_sums = qkv1.new_zeros(n, heads, 4, sizes["d"], dtype=torch.float32)
    w = norms.transpose(0, 1).contiguous()
    _attention_backward[(heads * n,)](
        do1.contiguous(), do2.contiguous(), qkv1.contiguous(), bias1.contiguous(), qkv2.contiguous(),
        bias2.contiguous(), *w.unbind(0), dqkv1, dqkv2, sums1, sums2, norm_sums, **sizes,
    )  # fmt: skip
    d_norms = summed(norm_sums, groups).sum(1)
    return (
        dqkv1,
        summed(sums1, groups).to(bias1.dtype),
        dqkv2,
        summed(sums2, groups).to(bias2.dtype),
        (d_norms if norm else torch.zeros_like(d_norms)).to(norms.dtype),
    )


@joint_attention_backward.register_fake
def _(
    do1: Tensor, do2: Tensor, qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor,
    heads: int, norm: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    a, b, c, d, e = (x.new_empty(x.shape) for x in (qkv1, bias1, qkv2, bias2, norms))
    return a, b, c, d, e


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.heads, ctx.norm = inputs
    ctx.save_for_backward(*tensors)
    ctx.shapes = [x.shape for x in output]


def _backward(ctx: Any, do1: Tensor | None, do2: Tensor | None) -> tuple[Any, ...]:
    qkv1, *rest = ctx.saved_tensors
    do1, do2 = (qkv1.new_zeros(shape) if x is None else x for x, shape in zip((do1, do2), ctx.shapes, strict=True))
    return *joint_attention_backward(do1, do2, qkv1, *rest, ctx.heads, ctx.norm), None, None


joint_attention.register_autograd(_backward, setup_context=_setup)
joint_attention.register_vmap(under_vmap(joint_attention))
