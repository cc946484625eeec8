"""Attention of queries, keys and values that were biased, normed and joined before, by the kernels of flash.py.

Every head is a sample of its own to them, and nothing is left to be normed.
"""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.flash import FORWARD, OF_KEYS, OF_QUERIES, ROWS
from flowzoo.backbones.fused.heads import LOG2_E, in_rows
from flowzoo.backbones.fused.operator import EPS, TRITON, under_vmap

if TRITON:
    from flowzoo.backbones.fused.flash import _flash_forward, _flash_keys, _flash_queries


def _launch(own: Tensor, q: Tensor, k: Tensor, groups: int) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and sizes for blocks of `own`, queries or keys."""
    n, heads, length, d = own.shape
    blocks = -(-length // ROWS)
    sizes = {"first": 0, "L": length, "blocks": blocks, "LQ": q.shape[2], "LK": k.shape[2], "D": d, "H": 1, "d": d}
    sizes["n"] = n * heads // groups
    return (blocks * n * heads,), {**sizes, "log2_scale": d**-0.5 * LOG2_E, "ROWS": ROWS}


@torch.library.custom_op("flowzoo::attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output, and logarithms of the sums of weights [N, heads, LQ]."""
    o, sums = _like(q)
    grid, sizes = _launch(q, q, k, _groups(key_bias))
    _flash_forward[grid](q.contiguous(), k.contiguous(), v.contiguous(), in_rows(key_bias), o, sums, **sizes, **FORWARD)
    return o, sums


def _groups(key_bias: Tensor | None) -> int:
    return 1 if key_bias is None else len(key_bias)


def _like(q: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=torch.float32)


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    return _like(q)


@torch.library.custom_op("flowzoo::attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, o: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, d = q.contiguous(), k.contiguous(), v.contiguous(), q.shape[-1]
    do, delta = torch.empty_like(q), torch.empty_like(sums)
    dq, dkv = torch.empty_like(q), k.new_empty(*k.shape[:-1], 2 * d)
    # What the kernels sum for biases and norms goes to `rest`, and what they are given of those is never used.
    groups = _groups(key_bias)
    key_bias = in_rows(key_bias)
    of_queries, of_keys = _launch(q, q, k, groups), _launch(k, q, k, groups)
    unread, rest = q.new_zeros(groups * 4 * d), sums.new_empty(2, max(of_queries[0][0], of_keys[0][0]), 2 * d)
    common = {"scale": d**-0.5, "NORM": False, "EPS": EPS}
    given = (grad.contiguous(), o, q, k, v, key_bias, sums, do, delta, q, unread, unread, dq, *rest)
    grid, sizes = of_queries
    _flash_queries[grid](*given, W=d, **sizes, **common, **OF_QUERIES)
    grid, sizes = of_keys
    given = (q, k, v, key_bias, do, sums, delta, dkv, unread, unread, dkv, *rest)
    _flash_keys[grid](*given, W=2 * d, column=0, **sizes, **common, **OF_KEYS)
    dk, dv = (x.contiguous() for x in dkv.chunk(2, -1))
    return dq, dk, dv


@_attention_backward.register_fake
def _(
    grad: Tensor, o: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    return dq, dk, dv


def _setup(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, *inputs)


def _backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    return *_attention_backward(grad, *ctx.saved_tensors), None


_attention.register_autograd(_backward, setup_context=_setup)
_attention.register_vmap(under_vmap(_attention))


def attend(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """Of q [N, heads, LQ, d] over k and v [N, heads, LK, d] -> like q; d one of `HEADS`.

    key_bias [G, LK], float32, is added to the scores of each key and has no gradient.
    """
    return _attention(q, k, v, key_bias)[0]
