"""Attention over one stream of tokens or two joined ones, from packed projections to packed gradients.

For short sequences: one program holds all queries, keys and values of one head of one sample. It adds the bias, takes
the RMS norm of queries and keys, and keeps nothing for the way back but what it was given. Streams are never joined in
memory.
"""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import TRITON, power_of_two, summed, under_vmap

LONGEST = 128  # tokens of a stream
EPS = 1e-6

if TRITON:
    import triton
    import triton.language as tl

    @triton.jit
    def _part(qkv, bias, i, group, L, W, column, T: tl.constexpr, d: tl.constexpr):
        """Rows of one of query, key and value of one head, its bias added, [T, d] in float32; 0 beyond L."""
        row, col = tl.arange(0, T), column + tl.arange(0, d)
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
    def _store(out, x, i, L, W, column, T: tl.constexpr, d: tl.constexpr):
        row, col = tl.arange(0, T), column + tl.arange(0, d)
        tl.store(out + (i * L + row)[:, None] * W + col[None], x, mask=(row < L)[:, None])

    @triton.jit
    def _load(x, i, L, W, column, T: tl.constexpr, d: tl.constexpr):
        row, col = tl.arange(0, T), column + tl.arange(0, d)
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
    def _back(q, k1, k2, v1, v2, do, L1, L2, scale, T1: tl.constexpr, T2: tl.constexpr, TWO: tl.constexpr):
        """Softmax weights p and gradients ds of the scores, of one stream's queries with the keys of both."""
        s1 = _scores(q, k1, L1, scale, T1)
        m = tl.max(s1, 1)
        if TWO:
            s2 = _scores(q, k2, L2, scale, T2)
            m = tl.maximum(m, tl.max(s2, 1))
        p1 = tl.exp(s1 - m[:, None])
        total = tl.sum(p1, 1)
        if TWO:
            p2 = tl.exp(s2 - m[:, None])
            total += tl.sum(p2, 1)
        p1 = p1 / total[:, None]
        dp1 = tl.dot(do, tl.trans(v1))
        delta = tl.sum(p1 * dp1, 1)
        if TWO:
            p2 = p2 / total[:, None]
            dp2 = tl.dot(do, tl.trans(v2))
            delta += tl.sum(p2 * dp2, 1)
            ds2 = (p2 * (dp2 - delta[:, None]) * scale).to(q.dtype)
            p2 = p2.to(q.dtype)
        else:
            p2 = p1
            ds2 = p1
        ds1 = (p1 * (dp1 - delta[:, None]) * scale).to(q.dtype)
        return p1.to(q.dtype), ds1, p2, ds2

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
    def _give(dx, dqkv, sums, i, L, W, column, T: tl.constexpr, d: tl.constexpr):
        """Stores a gradient and its sum over tokens, of which the bias's gradient is made."""
        _store(dqkv, dx, i, L, W, column, T, d)
        tl.store(sums + i * W + column + tl.arange(0, d), tl.sum(dx, 0))

    @triton.jit
    def _attention_forward(
        qkv1, bias1, qkv2, bias2, wq1, wk1, wq2, wk2, o1, o2, L1, L2, W1, W2, D, n, scale,
        T1: tl.constexpr, T2: tl.constexpr, d: tl.constexpr,
        TWO: tl.constexpr, Q2: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        head, i = tl.program_id(0) * d, tl.program_id(1).to(tl.int64)
        group = i // n
        kind = qkv1.dtype.element_ty
        q1, _ = _normed(_part(qkv1, bias1, i, group, L1, W1, head, T1, d), wq1, group, d, NORM, EPS)
        k1, _ = _normed(_part(qkv1, bias1, i, group, L1, W1, D + head, T1, d), wk1, group, d, NORM, EPS)
        v1 = _part(qkv1, bias1, i, group, L1, W1, 2 * D + head, T1, d).to(kind)
        k1 = k1.to(kind)
        k2 = k1
        v2 = v1
        if TWO:
            first = D if Q2 else 0  # a stream without queries begins with its keys
            k2, _ = _normed(_part(qkv2, bias2, i, group, L2, W2, first + head, T2, d), wk2, group, d, NORM, EPS)
            v2 = _part(qkv2, bias2, i, group, L2, W2, first + D + head, T2, d).to(kind)
            k2 = k2.to(kind)
        _store(o1, _out(q1.to(kind), k1, k2, v1, v2, L1, L2, scale, T1, T2, TWO), i, L1, D, head, T1, d)
        if Q2:
            q2, _ = _normed(_part(qkv2, bias2, i, group, L2, W2, head, T2, d), wq2, group, d, NORM, EPS)
            _store(o2, _out(q2.to(kind), k1, k2, v1, v2, L1, L2, scale, T1, T2, TWO), i, L2, D, head, T2, d)

    @triton.jit
    def _attention_backward(
        do1, do2, qkv1, bias1, qkv2, bias2, wq1, wk1, wq2, wk2, dqkv1, dqkv2, sums1, sums2, norm_sums,
        L1, L2, W1, W2, D, n, scale,
        T1: tl.constexpr, T2: tl.constexpr, d: tl.constexpr,
        TWO: tl.constexpr, Q2: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        head, i = tl.program_id(0) * d, tl.program_id(1).to(tl.int64)
        group = i // n
        kind = qkv1.dtype.element_ty
        q1, rq1 = _normed(_part(qkv1, bias1, i, group, L1, W1, head, T1, d), wq1, group, d, NORM, EPS)
        k1, rk1 = _normed(_part(qkv1, bias1, i, group, L1, W1, D + head, T1, d), wk1, group, d, NORM, EPS)
        v1 = _part(qkv1, bias1, i, group, L1, W1, 2 * D + head, T1, d).to(kind)
        g1 = _load(do1, i, L1, D, head, T1, d)
        q1, k1 = q1.to(kind), k1.to(kind)
        k2 = k1
        v2 = v1
        if TWO:
            first = D if Q2 else 0
            k2, rk2 = _normed(_part(qkv2, bias2, i, group, L2, W2, first + head, T2, d), wk2, group, d, NORM, EPS)
            v2 = _part(qkv2, bias2, i, group, L2, W2, first + D + head, T2, d).to(kind)
            k2 = k2.to(kind)
        p11, ds11, p12, ds12 = _back(q1, k1, k2, v1, v2, g1, L1, L2, scale, T1, T2, TWO)
        dq1 = tl.dot(ds11, k1)
        dk1 = tl.dot(tl.trans(ds11), q1)
        dv1 = tl.dot(tl.trans(p11), g1)
        if TWO:
            dq1 += tl.dot(ds12, k2)
            dk2 = tl.dot(tl.trans(ds12), q1)
            dv2 = tl.dot(tl.trans(p12), g1)
        place = norm_sums + (i * tl.num_programs(0) * d + head) * 4 + tl.arange(0, d)
        if Q2:
            q2, rq2 = _normed(_part(qkv2, bias2, i, group, L2, W2, head, T2, d), wq2, group, d, NORM, EPS)
            q2 = q2.to(kind)
            g2 = _load(do2, i, L2, D, head, T2, d)
            p21, ds21, p22, ds22 = _back(q2, k1, k2, v1, v2, g2, L1, L2, scale, T1, T2, TWO)
            dq2 = tl.dot(ds21, k1) + tl.dot(ds22, k2)
            dk1 += tl.dot(tl.trans(ds21), q2)
            dk2 += tl.dot(tl.trans(ds22), q2)
            dv1 += tl.dot(tl.trans(p21), g2)
            dv2 += tl.dot(tl.trans(p22), g2)
            # read again: to hold it until here would cost registers
            x = _part(qkv2, bias2, i, group, L2, W2, head, T2, d)
            dx, dw = _norm_back(dq2, x, rq2, wq2, group, d, NORM)
            _give(dx, dqkv2, sums2, i, L2, W2, head, T2, d)
            tl.store(place + 2 * d, dw)
        dx, dw = _norm_back(dq1, _part(qkv1, bias1, i, group, L1, W1, head, T1, d), rq1, wq1, group, d, NORM)
        _give(dx, dqkv1, sums1, i, L1, W1, head, T1, d)
        tl.store(place, dw)
        dx, dw = _norm_back(dk1, _part(qkv1, bias1, i, group, L1, W1, D + head, T1, d), rk1, wk1, group, d, NORM)
        _give(dx, dqkv1, sums1, i, L1, W1, D + head, T1, d)
        tl.store(place + d, dw)
        _give(dv1, dqkv1, sums1, i, L1, W1, 2 * D + head, T1, d)
        if TWO:
            x = _part(qkv2, bias2, i, group, L2, W2, first + head, T2, d)
            dx, dw = _norm_back(dk2, x, rk2, wk2, group, d, NORM)
            _give(dx, dqkv2, sums2, i, L2, W2, first + head, T2, d)
            tl.store(place + 3 * d, dw)
            _give(dv2, dqkv2, sums2, i, L2, W2, first + D + head, T2, d)


def _sizes(qkv1: Tensor, qkv2: Tensor, weights: Tensor, heads: int, norm: bool) -> dict[str, Any]:
    width = qkv1.shape[-1] // 3
    two, queries = qkv2.shape[1] > 0, qkv2.shape[-1] == 3 * width
    t1, t2 = (max(16, power_of_two(x.shape[1])) for x in (qkv1, qkv2 if two else qkv1))
    return {
        **{"L1": qkv1.shape[1], "L2": qkv2.shape[1], "W1": qkv1.shape[-1], "W2": qkv2.shape[-1], "D": width},
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
    _attention_forward[(heads, len(qkv1))](
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
    _attention_backward[(heads, n)](
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
