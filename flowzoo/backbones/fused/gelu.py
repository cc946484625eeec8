"""GELU of a linear layer's output, its bias added on the way."""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import TRITON, summed, under_vmap

if TRITON:
    import triton
    import triton.language as tl

    from flowzoo.backbones.fused.operator import kernel

    @triton.jit
    def _tanh_form(u):
        """The sigmoid s for which GELU is u s, and its derivative's inner factor (Hendrycks & Gimpel 2016)."""
        inner = 1.5957691216057308 * (u + 0.044715 * u * u * u)  # 2 sqrt(2 / pi)
        return tl.sigmoid(inner), 1.5957691216057308 * (1 + 0.134145 * u * u)

    @kernel
    def _gelu_forward(y, bias, out, rows, F, R: tl.constexpr, C: tl.constexpr):
        group = tl.program_id(2).to(tl.int64)
        r, c = tl.program_id(0) * R + tl.arange(0, R), tl.program_id(1) * C + tl.arange(0, C)
        ok = (r < rows)[:, None] & (c < F)[None]
        at = (group * rows + r)[:, None] * F + c[None]
        u = tl.load(y + at, mask=ok, other=0).to(tl.float32)
        u += tl.load(bias + group * F + c, mask=c < F, other=0).to(tl.float32)[None]
        s, _ = _tanh_form(u)
        tl.store(out + at, u * s, mask=ok)

    @kernel
    def _gelu_backward(dout, y, bias, dy, sums, rows, F, CHUNK: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
        group, chunk = tl.program_id(2).to(tl.int64), tl.program_id(0)
        c = tl.program_id(1) * C + tl.arange(0, C)
        b = tl.load(bias + group * F + c, mask=c < F, other=0).to(tl.float32)[None]
        total = tl.zeros((R, C), tl.float32)
        for first in range(0, CHUNK, R):
            r = chunk * CHUNK + first + tl.arange(0, R)
            ok = (r < rows)[:, None] & (c < F)[None]
            at = (group * rows + r)[:, None] * F + c[None]
            u = tl.load(y + at, mask=ok, other=0).to(tl.float32) + b
            s, inner = _tanh_form(u)
            d = tl.load(dout + at, mask=ok, other=0).to(tl.float32) * (s + u * s * (1 - s) * inner)
            tl.store(dy + at, d, mask=ok)
            total += d
        tl.store(sums + (group * tl.num_programs(0) + chunk) * F + c, tl.sum(total, 0), mask=c < F)


CHUNK, ROWS, COLUMNS = 64, 4, 512  # rows a program sums, tile of rows and columns


@torch.library.custom_op("flowzoo::bias_gelu", mutates_args=())
def bias_gelu(y: Tensor, bias: Tensor) -> Tensor:
    """GELU(y + bias) in the tanh form: y [N, L, F], bias [G, F] -> like y."""
    y, out = y.contiguous(), torch.empty_like(y, memory_format=torch.contiguous_format)
    groups, width = bias.shape
    rows = y.numel() // (groups * width)
    grid = (triton.cdiv(rows, ROWS), triton.cdiv(width, COLUMNS), groups)
    _gelu_forward[grid](y, bias.contiguous(), out, rows, width, R=ROWS, C=COLUMNS)
    return out


@bias_gelu.register_fake
def _(y: Tensor, bias: Tensor) -> Tensor:
    return y.new_empty(y.shape)


@torch.library.custom_op("flowzoo::bias_gelu_backward", mutates_args=())
def bias_gelu_backward(dout: Tensor, y: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    y, dout = y.contiguous(), dout.contiguous()
    groups, width = bias.shape
    rows = y.numel() // (groups * width)
    chunks = triton.cdiv(rows, CHUNK)
    dy, sums = torch.empty_like(y), y.new_empty(groups, chunks, width, dtype=torch.float32)
    grid = (chunks, triton.cdiv(width, COLUMNS), groups)
    _gelu_backward[grid](dout, y, bias.contiguous(), dy, sums, rows, width, CHUNK=CHUNK, R=ROWS, C=COLUMNS)
    return dy, summed(sums, groups, bias.dtype)


@bias_gelu_backward.register_fake
def _(dout: Tensor, y: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return y.new_empty(y.shape), bias.new_empty(bias.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor]:
    return bias_gelu_backward(dout, *ctx.saved_tensors)


bias_gelu.register_autograd(_backward, setup_context=_setup)
bias_gelu.register_vmap(under_vmap(bias_gelu))
