"""What attention.py does, for sequences of any length: in blocks, so that no matrix of scores is ever stored.

First queries, keys and values of both streams are put into one sequence, biased and normed. Then attention runs over
blocks with running maxima and sums (Dao 2023, FlashAttention-2). The way back takes the weights again from the scores
and the logarithms of their sums, and ends in the gradients of the packed projections: one kernel for queries, one for
keys and values, so that each gradient is written once and sums are taken in a fixed order. A program's own block is of
one stream; it looks at the blocks of both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flowzoo.backbones.fused.heads import LOG2_E, in_rows, outputs, with_way_back
from flowzoo.backbones.fused.operator import EPS, TRITON, summed

if TRITON:
    import triton
    import triton.language as tl

    from flowzoo.backbones.fused.heads import _key_bias, _load, _norm_back, _normed, _part, _store
    from flowzoo.backbones.fused.operator import kernel

    @triton.jit
    def _own(blocks, H, ROWS: tl.constexpr):
        """Rows of its stream, place among all heads, sample and head of a program. Blocks of a head are together."""
        block, at = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
        return block * ROWS + tl.arange(0, ROWS), at, at // H, at % H

    @kernel
    def _join(
        qkv, bias, wq, wk, q, k, v, first, L, blocks, W, LQ, LK, D, H, n,
        d: tl.constexpr, ROWS: tl.constexpr, Q: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        """One stream's tokens to their places in the sequence, from `first` on."""
        row, at, i, h = _own(blocks, H, ROWS)
        head, group = h * d, i // n
        own = D if Q else 0  # a stream without queries begins with its keys
        # The stores' masks know the stream's length alone; rows of the sequence are counted from its first.
        if Q:
            x, _ = _normed(_part(qkv, bias, i, group, row, L, W, head, d), wq, group, d, NORM, EPS)
            _store(q + (at * LQ + first) * d, x, 0, row, L, d, 0, d)
        x, _ = _normed(_part(qkv, bias, i, group, row, L, W, own + head, d), wk, group, d, NORM, EPS)
        _store(k + (at * LK + first) * d, x, 0, row, L, d, 0, d)
        x = _part(qkv, bias, i, group, row, L, W, own + D + head, d)
        _store(v + (at * LK + first) * d, x, 0, row, L, d, 0, d)

    @kernel
    def _flash_forward(
        q, k, v, key_bias, o, sums, first, L, blocks, LQ, LK, D, H, n, log2_scale,
        d: tl.constexpr, ROWS: tl.constexpr, K: tl.constexpr,
    ):  # fmt: skip
        """Output of a block of one stream's queries, and the logarithms to base 2 of their sums of weights."""
        row, at, i, h = _own(blocks, H, ROWS)
        k += at * LK * d
        v += at * LK * d
        if key_bias is not None:
            key_bias += i // n * LK
        x = _load(q + (at * LQ + first) * d, 0, row, L, d, 0, d)
        m, total = tl.full((ROWS,), float("-inf"), tl.float32), tl.zeros((ROWS,), tl.float32)
        out = tl.zeros((ROWS, d), tl.float32)
        for begin in range(0, LK, K):
            key = begin + tl.arange(0, K)
            s = tl.dot(x, tl.trans(_load(k, 0, key, LK, d, 0, d)))
            if key_bias is not None:
                s += _key_bias(key_bias, key, LK, log2_scale)[None]
            s = tl.where((key < LK)[None], s, float("-inf"))
            highest = tl.maximum(m, tl.max(s, 1) * log2_scale)
            # factor and difference are one instruction
            p, shrink = tl.exp2(s * log2_scale - highest[:, None]), tl.exp2(m - highest)
            total = total * shrink + tl.sum(p, 1)
            out = tl.dot(p.to(x.dtype), _load(v, 0, key, LK, d, 0, d), out * shrink[:, None])
            m = highest
        _store(o, out / total[:, None], i, row, L, D, h * d, d)
        tl.store(sums + at * LQ + first + row, m + tl.log2(total), mask=row < L)

    @triton.jit
    def _apart(
        dy, qkv, bias, weight, dqkv, bias_sums, norm_sums, i, group, row, L, W, column,
        d: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        """From the gradient of normed queries or keys to that of the projection, and the sums over tokens."""
        x = _part(qkv, bias, i, group, row, L, W, column, d)
        _, r = _normed(x, weight, group, d, NORM, EPS)
        dx, dw = _norm_back(dy, x, r, weight, group, d, NORM)
        _store(dqkv, dx, i, row, L, W, column, d)
        tl.store(bias_sums + column + tl.arange(0, d), tl.sum(dx, 0))
        tl.store(norm_sums + tl.arange(0, d), dw)

    @kernel
    def _flash_queries(
        do_stream, o, q, k, v, key_bias, sums, do, delta, qkv, bias, weight, dqkv, bias_sums, norm_sums,
        first, L, blocks, W, LQ, LK, D, H, n, scale, log2_scale,
        d: tl.constexpr, ROWS: tl.constexpr, K: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        """Gradients of a block of queries. Leaves the outputs' gradient by head, and its products with the outputs."""
        row, at, i, h = _own(blocks, H, ROWS)
        k += at * LK * d
        v += at * LK * d
        if key_bias is not None:
            key_bias += i // n * LK
        x = _load(q + (at * LQ + first) * d, 0, row, L, d, 0, d)
        g = _load(do_stream, i, row, L, D, h * d, d)
        own = _load(o, i, row, L, D, h * d, d).to(tl.float32)
        mean = tl.sum(own * g.to(tl.float32), 1)
        _store(do + (at * LQ + first) * d, g, 0, row, L, d, 0, d)
        tl.store(delta + at * LQ + first + row, mean, mask=row < L)
        total = tl.load(sums + at * LQ + first + row, mask=row < L, other=float("inf"))
        dx = tl.zeros((ROWS, d), tl.float32)
        for begin in range(0, LK, K):
            key = begin + tl.arange(0, K)
            y = _load(k, 0, key, LK, d, 0, d)
            s = tl.dot(x, tl.trans(y))
            if key_bias is not None:
                s += _key_bias(key_bias, key, LK, log2_scale)[None]
            p = tl.exp2(s * log2_scale - total[:, None])
            ds = p * (tl.dot(g, tl.trans(_load(v, 0, key, LK, d, 0, d))) - mean[:, None])
            # weights of keys beyond the end may be infinite, and infinity times 0 is not 0
            dx = tl.dot(tl.where((key < LK)[None], ds, 0).to(y.dtype), y, dx)
        part = i * blocks + tl.program_id(0) % blocks
        bias_sums += part * W
        norm_sums += (part * H + h) * 2 * d
        _apart(
            dx * scale, qkv, bias, weight, dqkv, bias_sums, norm_sums, i, i // n, row, L, W, h * d, d, NORM, EPS
        )  # fmt: skip

    @triton.jit
    def _from_queries(
        dk, dv, y, z, bias, q, do, sums, delta, query, LQ, log2_scale, d: tl.constexpr, ALL: tl.constexpr
    ):  # fmt: skip
        """Adds what a block of queries gives. ALL: none is beyond the end; without masks this takes a seventh less."""
        if ALL:
            place = query[:, None] * d + tl.arange(0, d)[None]
            x, g, total, mean = tl.load(q + place), tl.load(do + place), tl.load(sums + query), tl.load(delta + query)
        else:
            x, g = _load(q, 0, query, LQ, d, 0, d), _load(do, 0, query, LQ, d, 0, d)
            # beyond the end infinite, so that weights are 0
            total = tl.load(sums + query, mask=query < LQ, other=float("inf"))
            mean = tl.load(delta + query, mask=query < LQ, other=0)
        s = tl.dot(y, tl.trans(x))
        if bias is not None:
            s += bias[:, None]
        p = tl.exp2(s * log2_scale - total[None])
        dv = tl.dot(p.to(g.dtype), g, dv)
        return tl.dot((p * (tl.dot(z, tl.trans(g)) - mean[None])).to(x.dtype), x, dk), dv

    @kernel
    def _flash_keys(
        q, k, v, key_bias, do, sums, delta, qkv, bias, weight, dqkv, bias_sums, norm_sums,
        first, L, blocks, W, LQ, LK, D, H, n, column, scale, log2_scale,
        d: tl.constexpr, ROWS: tl.constexpr, Q: tl.constexpr, NORM: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        """Gradients of a block of keys and values. Scores are transposed: weights never change their place."""
        row, at, i, h = _own(blocks, H, ROWS)
        q += at * LQ * d
        do += at * LQ * d
        sums += at * LQ
        delta += at * LQ
        y = _load(k + (at * LK + first) * d, 0, row, L, d, 0, d)
        z = _load(v + (at * LK + first) * d, 0, row, L, d, 0, d)
        own = key_bias
        if key_bias is not None:
            own = _key_bias(key_bias + i // n * LK + first, row, L, log2_scale)
        dk, dv = tl.zeros((ROWS, d), tl.float32), tl.zeros((ROWS, d), tl.float32)
        whole = LQ // Q * Q
        for begin in range(0, whole, Q):
            query = begin + tl.arange(0, Q)
            dk, dv = _from_queries(dk, dv, y, z, own, q, do, sums, delta, query, LQ, log2_scale, d, True)
        if whole < LQ:
            query = whole + tl.arange(0, Q)
            dk, dv = _from_queries(dk, dv, y, z, own, q, do, sums, delta, query, LQ, log2_scale, d, False)
        part = i * blocks + tl.program_id(0) % blocks
        bias_sums += part * W
        norm_sums += (part * H + h) * 2 * d + d
        _store(dqkv, dv, i, row, L, W, column + D + h * d, d)
        tl.store(bias_sums + column + D + h * d + tl.arange(0, d), tl.sum(tl.where((row < L)[:, None], dv, 0), 0))
        dk = tl.where((row < L)[:, None], dk * scale, 0)
        _apart(
            dk, qkv, bias, weight, dqkv, bias_sums, norm_sums, i, i // n, row, L, W, column + h * d, d, NORM, EPS
        )  # fmt: skip


ROWS = 64  # tokens of a program's own block
# Blocks that a program looks at, and how it runs: measured on an H100 with 410 tokens and heads of 64.
FORWARD = {"K": 64, "num_warps": 4, "num_stages": 3}
OF_QUERIES = {"K": 32, "num_warps": 4, "num_stages": 4, "maxnreg": 128}
OF_KEYS = {"Q": 32, "num_warps": 4, "num_stages": 3, "maxnreg": 128}


@dataclass(frozen=True)
class _Stream:
    """One stream's packed projections, its norms' weights, and where its tokens are in the sequence."""

    qkv: Tensor
    bias: Tensor
    wq: Tensor
    wk: Tensor
    first: int
    looks: bool  # it has queries

    @property
    def length(self) -> int:
        return self.qkv.shape[1]

    @property
    def blocks(self) -> int:
        return -(-self.length // ROWS)


def _streams(qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor) -> Iterator[_Stream]:
    """Those that have tokens."""
    w = norms.contiguous().unbind(1)
    for at, qkv, bias, first in ((0, qkv1, bias1, 0), (2, qkv2, bias2, qkv1.shape[1])):
        if qkv.shape[1]:
            looks = qkv.shape[-1] == qkv1.shape[-1]
            yield _Stream(qkv.contiguous(), bias.contiguous(), w[at], w[at + 1], first, looks)


def _shapes(qkv1: Tensor, qkv2: Tensor, heads: int) -> tuple[int, int, int, int, int]:
    """Samples, queries, keys, width, and that of a head."""
    (n, length, packed), more = qkv1.shape, qkv2.shape[1]
    queries = length + more if qkv2.shape[-1] == packed else length
    return n, queries, length + more, packed // 3, packed // (3 * heads)


@torch.library.custom_op("flowzoo::long_attention", mutates_args=())
def _long_attention(
    qkv1: Tensor,
    bias1: Tensor,
    qkv2: Tensor,
    bias2: Tensor,
    norms: Tensor,
    key_bias: Tensor | None,
    heads: int,
    norm: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Both outputs, logarithms of the sums of weights [N, heads, LQ], and queries, keys, values [N, heads, L, d]."""
    n, queries, keys, width, d = _shapes(qkv1, qkv2, heads)
    o1, o2, sums, q, k, v = _made(qkv1, qkv2, heads)
    streams, key_bias = list(_streams(qkv1, bias1, qkv2, bias2, norms)), in_rows(key_bias)
    sizes = {"LQ": queries, "LK": keys, "D": width, "H": heads, "n": n // len(norms), "d": d, "ROWS": ROWS}
    for s in streams:
        own = {"first": s.first, "L": s.length, "blocks": s.blocks, "W": s.qkv.shape[-1], "Q": s.looks}
        _join[(s.blocks * n * heads,)](s.qkv, s.bias, s.wq, s.wk, q, k, v, NORM=norm, EPS=EPS, **own, **sizes)
    for s, o in zip(streams, (o1, o2), strict=False):
        if s.looks:
            own = {"first": s.first, "L": s.length, "blocks": s.blocks, "log2_scale": d**-0.5 * LOG2_E}
            _flash_forward[(s.blocks * n * heads,)](q, k, v, key_bias, o, sums, **own, **sizes, **FORWARD)
    return o1, o2, sums, q, k, v


def _made(qkv1: Tensor, qkv2: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    n, queries, keys, _, d = _shapes(qkv1, qkv2, heads)
    q, k, v = (qkv1.new_empty(n, heads, length, d) for length in (queries, keys, keys))
    return *outputs(qkv1, qkv2, heads), q, k, v


@_long_attention.register_fake
def _(
    qkv1: Tensor,
    bias1: Tensor,
    qkv2: Tensor,
    bias2: Tensor,
    norms: Tensor,
    key_bias: Tensor | None,
    heads: int,
    norm: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _made(qkv1, qkv2, heads)


@torch.library.custom_op("flowzoo::long_attention_backward", mutates_args=())
def _long_attention_backward(
    do1: Tensor, do2: Tensor, o1: Tensor, o2: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor,
    qkv1: Tensor, bias1: Tensor, qkv2: Tensor, bias2: Tensor, norms: Tensor, key_bias: Tensor | None, heads: int,
    norm: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv1, bias1, qkv2, bias2 and norms."""
    n, queries, keys, width, d = _shapes(qkv1, qkv2, heads)
    do, delta, key_bias = torch.empty_like(q), torch.empty_like(sums), in_rows(key_bias)
    grads, bias_sums, norm_sums = [], [], []
    for qkv in (qkv1, qkv2):
        grads.append(torch.empty_like(qkv, memory_format=torch.contiguous_format))
        blocks = -(-qkv.shape[1] // ROWS)
        bias_sums.append(qkv.new_empty(n, blocks, qkv.shape[-1], dtype=torch.float32))
        make = qkv.new_empty if qkv.shape[-1] == 3 * width else qkv.new_zeros  # without queries theirs is not written
        norm_sums.append(make(n, blocks, heads, 2, d, dtype=torch.float32))
    streams = list(zip(_streams(qkv1, bias1, qkv2, bias2, norms), grads, bias_sums, norm_sums, strict=False))
    sizes = {
        **{"LQ": queries, "LK": keys, "D": width, "H": heads, "n": n // len(norms), "scale": d**-0.5},
        **{"log2_scale": d**-0.5 * LOG2_E, "d": d, "ROWS": ROWS, "NORM": norm, "EPS": EPS},
    }
    own = lambda s: {"first": s.first, "L": s.length, "blocks": s.blocks, "W": s.qkv.shape[-1]}  # noqa: E731
    # queries first: the other kernel needs what they leave
    for (s, *made), do_stream, o in zip(streams, (do1, do2), (o1, o2), strict=False):
        if s.looks:
            given = (do_stream.contiguous(), o, q, k, v, key_bias, sums, do, delta, s.qkv, s.bias, s.wq)
            _flash_queries[(s.blocks * n * heads,)](*given, *made, **own(s), **sizes, **OF_QUERIES)
    for s, *made in streams:
        column = width if s.looks else 0
        _flash_keys[(s.blocks * n * heads,)](
            q, k, v, key_bias, do, sums, delta, s.qkv, s.bias, s.wk, *made, column=column, **own(s), **sizes, **OF_KEYS
        )
    groups = len(norms)
    d_bias1, d_bias2 = (summed(x, groups, bias1.dtype) for x in bias_sums)
    d_norms = torch.cat([summed(x.flatten(3), groups, norms.dtype) for x in norm_sums], 1).view(norms.shape)
    return grads[0], d_bias1, grads[1], d_bias2, d_norms if norm else torch.zeros_like(d_norms)


with_way_back(_long_attention, _long_attention_backward)


def long_attention(
    qkv1: Tensor,
    bias1: Tensor,
    qkv2: Tensor,
    bias2: Tensor,
    norms: Tensor,
    key_bias: Tensor | None,
    heads: int,
    norm: bool,
) -> tuple[Tensor, Tensor]:
    """As `joint_attention`, of which L1 and L2 may be of any size."""
    o1, o2, *_ = _long_attention(qkv1, bias1, qkv2, bias2, norms, key_bias, heads, norm)
    return o1, o2
