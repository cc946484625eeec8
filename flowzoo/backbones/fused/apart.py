"""Attention of queries, keys and values that were biased, normed and joined before, by the kernels of flash.py.

Every head is a sample of its own to them, and nothing is left to be normed.
"""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.flash import FORWARD, OF_KEYS, OF_QUERIES, ROWS
from flowzoo.backbones.fused.heads import LOG2_E
from flowzoo.backbones.fused.operator import EPS, TRITON, under_vmap

if TRITON:
    from flowzoo.backbones.fused.flash import _flash_forward, _flash_keys, _flash_queries


def _sizes(q: Tensor, k: Tensor) -> dict[str, Any]:
    d = q.shape[-1]
    return {"LQ": q.shape[2], "LK": k.shape[2], "D": d, "H": 1, "d": d, "log2_scale": d**-0.5 * LOG2_E, "ROWS": ROWS}


def _grid(x: Tensor) -> tuple[int, int]:
    return -(-x.shape[2] // ROWS), x.shape[0] * x.shape[1]


@torch.library.custom_op("flowzoo::attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Output, and logarithms of the sums of weights [N, heads, LQ]."""
    o, sums = _like(q)
    sizes = {"first": 0, "L": q.shape[2], **_sizes(q, k), **FORWARD}
    _flash_forward[_grid(q)](q.contiguous(), k.contiguous(), v.contiguous(), o, sums, **sizes)
    return o, sums


def _like(q: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:-1], dtype=torch.float32)


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return _like(q)


@torch.library.custom_op("flowzoo::attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, o: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    do, delta = torch.empty_like(q), torch.empty_like(sums)
    dq, dkv = torch.empty_like(q), k.new_empty(*k.shape[:-1], 2 * k.shape[-1])
    sizes = {"first": 0, "n": 1, **_sizes(q, k), "scale": q.shape[-1] ** -0.5, "NORM": False, "EPS": EPS}
    # What the kernels sum for biases and norms goes here, and what they would read of those is never used.
    unread = q.new_zeros(2 * q.shape[-1])
    d, (n, heads) = q.shape[-1], q.shape[:2]
    rest = sums.new_empty(2, n * heads, max(_grid(q)[0], _grid(k)[0]), 2 * d)
    own = {"L": q.shape[2], "W": d}
    given = (grad.contiguous(), o, q, k, v, sums, do, delta, q, unread, unread, dq, *rest)
    _flash_queries[_grid(q)](*given, **own, **sizes, **OF_QUERIES)
    own = {"L": k.shape[2], "W": 2 * d, "column": 0}
    _flash_keys[_grid(k)](q, k, v, do, sums, delta, dkv, unread, unread, dkv, *rest, **own, **sizes, **OF_KEYS)
    dk, dv = (x.contiguous() for x in dkv.chunk(2, -1))
    return dq, dk, dv


@_attention_backward.register_fake
def _(grad: Tensor, o: Tensor, sums: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    return dq, dk, dv


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, *inputs)


def _backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, ...]:
    return _attention_backward(grad, *ctx.saved_tensors)


_attention.register_autograd(_backward, setup_context=_setup)
_attention.register_vmap(under_vmap(_attention))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of q [N, heads, LQ, d] over k and v [N, heads, LK, d] -> like q; d one of `HEADS`."""
    return _attention(q, k, v)[0]
