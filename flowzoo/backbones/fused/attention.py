"""Attention over one stream of tokens or two joined ones, from packed projections to packed gradients.

For short sequences: one program holds all queries, keys and values of one head of one sample. It adds the bias, takes
the RMS norm of queries and keys, and keeps for the way back, beside what it was given and what it gives, one number a
query: the logarithm of its sum of weights. Streams are never joined in memory.
"""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.heads import LOG2_E, in_rows, outputs, with_way_back
from flowzoo.backbones.fused.operator import EPS, TRITON, power_of_two, summed

LONGEST = 64  # tokens of a stream: of more a program cannot hold all

if TRITON:
    import triton
    import triton.language as tl

    from flowzoo.backbones.fused.heads import _key_bias, _load, _norm_back, _normed, _part, _store

    @triton.jit
    def _scores(q, k, key_bias, L, log2_scale, T: tl.constexpr):
        """q k^T and the keys' bias, if there is one, with keys beyond L at minus infinity."""
        s = tl.dot(q, tl.trans(k))
        if key_bias is not None:
            s += _key_bias(key_bias, tl.arange(0, T), L, log2_scale)[None]
        return tl.where((tl.arange(0, T) < L)[None], s * log2_scale, float("-inf"))

    @triton.jit
    def _out(
        q, k1, k2, v1, v2, key_bias1, key_bias2, L1, L2, log2_scale,
        T1: tl.constexpr, T2: tl.constexpr, TWO: tl.constexpr,
    ):  # fmt: skip
        """softmax(q k^T) v over the keys of both streams, and the logarithms to base 2 of the sums of weights."""
        s1 = _scores(q, k1, key_bias1, L1, log2_scale, T1)
        m = tl.max(s1, 1)
        if TWO:
            s2 = _scores(q, k2, key_bias2, L2, log2_scale, T2)
            m = tl.maximum(m, tl.max(s2, 1))
        p1 = tl.exp2(s1 - m[:, None])
        total = tl.sum(p1, 1)
        o = tl.dot(p1.to(v1.dtype), v1)
        if TWO:
            p2 = tl.exp2(s2 - m[:, None])
            total += tl.sum(p2, 1)
            o += tl.dot(p2.to(v2.dtype), v2)
        return o / total[:, None], m + tl.log2(total)

    @triton.jit
    def _weights(k, v, q, g, total, mean, key_bias, L, log2_scale, T: tl.constexpr):
        """Softmax weights of one stream's queries and one stream's keys, and the gradient of their scores, transposed.

        total: logarithms of the sums of weights, infinite for queries that are none; mean: g o of every query.
        """
        s = tl.dot(k, tl.trans(q))
        if key_bias is not None:
            s += _key_bias(key_bias, tl.arange(0, T), L, log2_scale)[:, None]
        p = tl.exp2(s * log2_scale - total[None])
        p = tl.where((tl.arange(0, T) < L)[:, None], p, 0)
        ds = p * (tl.dot(v, tl.trans(g)) - mean[None])
        return p.to(k.dtype), ds.to(k.dtype)

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
    def _queries(
        qkv, bias, do, o, sums, i, group, L, W, head, D, weight,
        T: tl.constexpr, d: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        """Queries of one stream, their norms' factors, the outputs' gradient, its product with them, and `sums`."""
        row = tl.arange(0, T)
        q, r = _normed(_part(qkv, bias, i, group, row, L, W, head, d), weight, group, d, NORM, EPS)
        g = _load(do, i, row, L, D, head, d)
        mean = tl.sum(_load(o, i, row, L, D, head, d).to(tl.float32) * g.to(tl.float32), 1)
        return q.to(g.dtype), r, g, mean, tl.load(sums + row, mask=row < L, other=float("inf"))

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
        qkv1, bias1, qkv2, bias2, wq1, wk1, wq2, wk2, key_bias, o1, o2, sums,
        L1, L2, W1, W2, D, H, n, LQ, scale, log2_scale,
        T1: tl.constexpr, T2: tl.constexpr, d: tl.constexpr,
        TWO: tl.constexpr, Q2: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        head, i = tl.program_id(0) % H * d, (tl.program_id(0) // H).to(tl.int64)
        group = i // n
        key_bias1 = key_bias
        key_bias2 = key_bias
        if key_bias is not None:
            key_bias1 = key_bias + group * (L1 + L2)
            key_bias2 = key_bias1 + L1
        kind = qkv1.dtype.element_ty
        row1, row2 = tl.arange(0, T1), tl.arange(0, T2)
        sums += tl.program_id(0).to(tl.int64) * LQ
        k1, _, v1 = _keys_and_values(qkv1, bias1, i, group, L1, W1, D, head, D, wk1, T1, d, NORM, EPS)
        k2 = k1
        v2 = v1
        if TWO:
            first = D if Q2 else 0  # a stream without queries begins with its keys
            k2, _, v2 = _keys_and_values(qkv2, bias2, i, group, L2, W2, first, head, D, wk2, T2, d, NORM, EPS)
        q1, _ = _normed(_part(qkv1, bias1, i, group, row1, L1, W1, head, d), wq1, group, d, NORM, EPS)
        out, total = _out(q1.to(kind), k1, k2, v1, v2, key_bias1, key_bias2, L1, L2, log2_scale, T1, T2, TWO)
        _store(o1, out, i, row1, L1, D, head, d)
        tl.store(sums + row1, total, mask=row1 < L1)
        if Q2:
            q2, _ = _normed(_part(qkv2, bias2, i, group, row2, L2, W2, head, d), wq2, group, d, NORM, EPS)
            out, total = _out(q2.to(kind), k1, k2, v1, v2, key_bias1, key_bias2, L1, L2, log2_scale, T1, T2, TWO)
            _store(o2, out, i, row2, L2, D, head, d)
            tl.store(sums + L1 + row2, total, mask=row2 < L2)

    @triton.jit
    def _attention_backward(
        do1, do2, o1, o2, sums, qkv1, bias1, qkv2, bias2, wq1, wk1, wq2, wk2, key_bias,
        dqkv1, dqkv2, sums1, sums2, norm_sums, L1, L2, W1, W2, D, H, n, LQ, scale, log2_scale,
        T1: tl.constexpr, T2: tl.constexpr, d: tl.constexpr,
        TWO: tl.constexpr, Q2: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        head, i = tl.program_id(0) % H * d, (tl.program_id(0) // H).to(tl.int64)
        group = i // n
        key_bias1 = key_bias
        key_bias2 = key_bias
        if key_bias is not None:
            key_bias1 = key_bias + group * (L1 + L2)
            key_bias2 = key_bias1 + L1
        place = norm_sums + (i * H * d + head) * 4 + tl.arange(0, d)
        sums += tl.program_id(0).to(tl.int64) * LQ
        # The keys of one stream after those of the other: what is finished leaves its registers.
        k, r, v = _keys_and_values(qkv1, bias1, i, group, L1, W1, D, head, D, wk1, T1, d, NORM, EPS)
        q1, rq1, g1, mean1, total1 = _queries(
            qkv1, bias1, do1, o1, sums, i, group, L1, W1, head, D, wq1, T1, d, NORM, EPS
        )  # fmt: skip
        p, ds = _weights(k, v, q1, g1, total1, mean1, key_bias1, L1, log2_scale, T1)
        dv = tl.dot(p, g1)
        dk = tl.dot(ds, q1)
        dq1 = tl.dot(tl.trans(ds), k)
        if Q2:
            q2, rq2, g2, mean2, total2 = _queries(
                qkv2, bias2, do2, o2, sums + L1, i, group, L2, W2, head, D, wq2, T2, d, NORM, EPS
            )  # fmt: skip
            p, ds = _weights(k, v, q2, g2, total2, mean2, key_bias1, L1, log2_scale, T1)
            dv += tl.dot(p, g2)
            dk += tl.dot(ds, q2)
            dq2 = tl.dot(tl.trans(ds), k)
        _give_values(dv, dqkv1, sums1, i, L1, W1, 2 * D + head, T1, d)
        _give(dk * scale, r, qkv1, bias1, wk1, dqkv1, sums1, place + d, i, group, L1, W1, D + head, T1, d, NORM)
        if TWO:
            first = D if Q2 else 0
            k, r, v = _keys_and_values(qkv2, bias2, i, group, L2, W2, first, head, D, wk2, T2, d, NORM, EPS)
            p, ds = _weights(k, v, q1, g1, total1, mean1, key_bias2, L2, log2_scale, T2)
            dv = tl.dot(p, g1)
            dk = tl.dot(ds, q1)
            dq1 += tl.dot(tl.trans(ds), k)
            if Q2:
                p, ds = _weights(k, v, q2, g2, total2, mean2, key_bias2, L2, log2_scale, T2)
                dv += tl.dot(p, g2)
                dk += tl.dot(ds, q2)
                dq2 += tl.dot(tl.trans(ds), k)
                _give(
                    dq2 * scale, rq2, qkv2, bias2, wq2, dqkv2, sums2, place + 2 * d, i, group, L2, W2, head, T2, d, NORM
                )  # fmt: skip
            _give_values(dv, dqkv2, sums2, i, L2, W2, first + D + head, T2, d)
            _give(
                dk * scale, r, qkv2, bias2, wk2, dqkv2, sums2, place + 3 * d,
                i, group, L2, W2, first + head, T2, d, NORM,
            )  # fmt: skip
        _give(dq1 * scale, rq1, qkv1, bias1, wq1, dqkv1, sums1, place, i, group, L1, W1, head, T1, d, NORM)


def _sizes(qkv1: Tensor, qkv2: Tensor, weights: Tensor, heads: int, norm: bool) -> dict[str, Any]:
    width = qkv1.shape[-1] // 3
    d = width // heads
    two, queries = qkv2.shape[1] > 0, qkv2.shape[-1] == 3 * width
    t1, t2 = (max(16, power_of_two(x.shape[1])) for x in (qkv1, qkv2 if two else qkv1))
    return {
        **{"L1": qkv1.shape[1], "L2": qkv2.shape[1], "W1": qkv1.shape[-1], "W2": qkv2.shape[-1], "D": width},
        **{"H": heads, "n": len(qkv1) // len(weights), "LQ": qkv1.shape[1] + (qkv2.shape[1] if queries else 0)},
        **{"scale": d**-0.5, "log2_scale": d**-0.5 * LOG2_E, "T1": t1, "T2": t2, "d": d},
        **{"TWO": two, "Q2": two and queries, "NORM": norm, "EPS": EPS},
        "num_warps": 4,
    }


@torch.library.custom_op("flowzoo::joint_attention", mutates_args=())
def _joint_attention(
    qkv1: Tensor,
    bias1: Tensor,
    qkv2: Tensor,
    bias2: Tensor,
    norms: Tensor,
    key_bias: Tensor | None,
    heads: int,
    norm: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    made, sizes = outputs(qkv1, qkv2, heads), _sizes(qkv1, qkv2, norms, heads, norm)
    _attention_forward[(heads * len(qkv1),)](
        qkv1.contiguous(),
        bias1.contiguous(),
        qkv2.contiguous(),
        bias2.contiguous(),
        *norms.contiguous().unbind(1),
        in_rows(key_bias),
        *made,
        **sizes,
    )
    return made


@_joint_attention.register_fake
def _(
    qkv1: Tensor,
    bias1: Tensor,
    qkv2: Tensor,
    bias2: Tensor,
    norms: Tensor,
    key_bias: Tensor | None,
    heads: int,
    norm: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return outputs(qkv1, qkv2, heads)


@torch.library.custom_op("flowzoo::joint_attention_backward", mutates_args=())
def _joint_attention_backward(
    do1: Tensor, do2: Tensor, o1: Tensor, o2: Tensor, sums: Tensor, qkv1: Tensor, bias1: Tensor, qkv2: Tensor,
    bias2: Tensor, norms: Tensor, key_bias: Tensor | None, heads: int, norm: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv1, bias1, qkv2, bias2 and norms."""
    n, groups = len(qkv1), len(norms)
    dqkv1 = torch.empty_like(qkv1, memory_format=torch.contiguous_format)
    dqkv2 = torch.empty_like(qkv2, memory_format=torch.contiguous_format)
    sums1 = qkv1.new_empty(n, qkv1.shape[-1], dtype=torch.float32)
    sizes = _sizes(qkv1, qkv2, norms, heads, norm)
    sums2 = (qkv2.new_empty if sizes["TWO"] else qkv2.new_zeros)(n, qkv2.shape[-1], dtype=torch.float32)
    norm_sums = (qkv1.new_empty if sizes["Q2"] else qkv1.new_zeros)(n, heads, 4, sizes["d"], dtype=torch.float32)
    _attention_backward[(heads * n,)](
        do1.contiguous(), do2.contiguous(), o1, o2, sums, qkv1.contiguous(), bias1.contiguous(), qkv2.contiguous(),
        bias2.contiguous(), *norms.contiguous().unbind(1), in_rows(key_bias),
        dqkv1, dqkv2, sums1, sums2, norm_sums, **sizes,
    )  # fmt: skip
    d_norms = summed(norm_sums.flatten(2), groups, norms.dtype).view(norms.shape)
    return (
        dqkv1,
        summed(sums1, groups, bias1.dtype),
        dqkv2,
        summed(sums2, groups, bias2.dtype),
        d_norms if norm else torch.zeros_like(d_norms),
    )


with_way_back(_joint_attention, _joint_attention_backward)


def joint_attention(
    qkv1: Tensor,
    bias1: Tensor,
    qkv2: Tensor,
    bias2: Tensor,
    norms: Tensor,
    key_bias: Tensor | None,
    heads: int,
    norm: bool,
) -> tuple[Tensor, Tensor]:
    """Attention over all tokens of both streams; -> [N, L1, D] and [N, L2, D].

    qkv1 [N, L1, 3 D] and bias1 [G, 3 D], query, key and value packed in this order; qkv2 and bias2 likewise, or without
    queries, 2 D wide (the second output is then [N, 0, D]), or of no tokens, L2 = 0. norms [G, 4, D / heads]: weights
    of the RMS norms of query and key of the first stream, then of the second; not read where `norm` is False. key_bias
    [G, L1 + L2], float32, is added to the scores of each key and has no gradient. L1 and L2 at most `LONGEST`,
    D / heads one of `HEADS`.
    """
    o1, o2, _ = _joint_attention(qkv1, bias1, qkv2, bias2, norms, key_bias, heads, norm)
    return o1, o2
