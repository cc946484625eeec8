"""A gated update of the residual stream and the modulated layer norm of the sum, in one pass each way."""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import EPS, TRITON, power_of_two, summed, under_vmap

if TRITON:
    import triton
    import triton.language as tl

    @triton.jit
    def _rows(first, i, L, D: tl.constexpr, R: tl.constexpr, W: tl.constexpr):
        """Where R tokens of sample i from `first` on lie, and which of the places exist."""
        row, col = first + tl.arange(0, R), tl.arange(0, W)
        return (i * L + row)[:, None] * D + col[None], (row < L)[:, None] & (col < D)[None]

    @triton.jit
    def _vector(v, i, stride, D: tl.constexpr, W: tl.constexpr):
        col = tl.arange(0, W)
        return tl.load(v + i * stride + col, mask=col < D, other=0).to(tl.float32)[None]

    @triton.jit
    def _norm_forward(
        x, a, bias, gate, shift, scale, y, h, L, n, gate_stride, shift_stride, scale_stride,
        D: tl.constexpr, W: tl.constexpr, R: tl.constexpr, ADD: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        i = tl.program_id(0).to(tl.int64)
        at, ok = _rows(tl.program_id(1) * R, i, L, D, R, W)
        v = tl.load(x + at, mask=ok, other=0).to(tl.float32)
        if ADD:
            u = tl.load(a + at, mask=ok, other=0).to(tl.float32) + _vector(bias, i // n, D, D, W)
            rounded = (v + _vector(gate, i, gate_stride, D, W) * u).to(y.dtype.element_ty)
            tl.store(y + at, rounded, mask=ok)
            v = tl.where(ok, rounded.to(tl.float32), 0)
        d = tl.where(ok, v - tl.sum(v, 1)[:, None] / D, 0)
        normed = d * tl.rsqrt(tl.sum(d * d, 1) / D + EPS)[:, None]
        out = normed * (1 + _vector(scale, i, scale_stride, D, W)) + _vector(shift, i, shift_stride, D, W)
        tl.store(h + at, out, mask=ok)

    @triton.jit
    def _norm_backward(
        dh, dy, y, a, gate, scale, dx, da, sums, L, gate_stride, scale_stride,
        D: tl.constexpr, W: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr, ADD: tl.constexpr, EPS: tl.constexpr,
    ):  # fmt: skip
        i, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
        factor = 1 + _vector(scale, i, scale_stride, D, W)
        shift_sum, scale_sum = tl.zeros((R, W), tl.float32), tl.zeros((R, W), tl.float32)
        if ADD:
            g = _vector(gate, i, gate_stride, D, W)
            gate_sum, dx_sum = tl.zeros((R, W), tl.float32), tl.zeros((R, W), tl.float32)
        for first in range(0, CHUNK, R):
            at, ok = _rows(chunk * CHUNK + first, i, L, D, R, W)
            v = tl.load(y + at, mask=ok, other=0).to(tl.float32)
            d = tl.where(ok, v - tl.sum(v, 1)[:, None] / D, 0)
            r = tl.rsqrt(tl.sum(d * d, 1) / D + EPS)[:, None]
            normed = d * r
            out = tl.load(dh + at, mask=ok, other=0).to(tl.float32)
            shift_sum += out
            scale_sum += out * normed
            inner = out * factor
            # layer norm backwards: what is left of `inner` without its mean and its share along `normed`
            grad = r * (inner - tl.sum(inner, 1)[:, None] / D - normed * (tl.sum(inner * normed, 1)[:, None] / D))
            if ADD:
                grad = tl.where(ok, grad + tl.load(dy + at, mask=ok, other=0).to(tl.float32), 0)
                gate_sum += grad * tl.load(a + at, mask=ok, other=0).to(tl.float32)
                dx_sum += grad
                tl.store(da + at, grad * g, mask=ok)
            tl.store(dx + at, grad, mask=ok)
        col = tl.arange(0, W)
        place = sums + (i * tl.num_programs(1) + chunk) * (4 if ADD else 2) * D + col
        tl.store(place, tl.sum(shift_sum, 0), mask=col < D)
        tl.store(place + D, tl.sum(scale_sum, 0), mask=col < D)
        if ADD:
            tl.store(place + 2 * D, tl.sum(gate_sum, 0), mask=col < D)
            tl.store(place + 3 * D, tl.sum(dx_sum, 0), mask=col < D)


CHUNK = 64  # tokens whose sums one program takes


def _sizes(width: int) -> dict[str, int]:
    w = power_of_two(width)
    return {"D": width, "W": w, "R": max(1, 1024 // w), "num_warps": 2 if w <= 1024 else 4}


def _run_forward(
    x: Tensor, update: tuple[Tensor, Tensor, Tensor] | None, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    n, length, width = x.shape
    x = x.contiguous()
    h = torch.empty_like(x, dtype=shift.dtype)
    y = x if update is None else torch.empty_like(x)
    a, bias, gate = (x, x, shift) if update is None else update
    sizes = _sizes(width)
    _norm_forward[(n, triton.cdiv(length, sizes["R"]))](
        x, a.contiguous(), bias.contiguous(), gate, shift, scale, y, h, length, n // len(bias),
        gate.stride(0), shift.stride(0), scale.stride(0), ADD=update is not None, EPS=EPS, **sizes,
    )  # fmt: skip
    return y, h


def _run_backward(
    dh: Tensor, dy: Tensor | None, y: Tensor, a: Tensor | None, gate: Tensor | None, scale: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    n, length, width = y.shape
    chunks = triton.cdiv(length, CHUNK)
    dx = torch.empty_like(y, memory_format=torch.contiguous_format)
    da = None if a is None else torch.empty_like(a, memory_format=torch.contiguous_format)
    sums = y.new_empty(n, chunks, 2 if a is None else 4, width, dtype=torch.float32)
    other = scale if gate is None else gate
    _norm_backward[(n, chunks)](
        dh.contiguous(), dx if dy is None else dy.contiguous(), y.contiguous(), y if a is None else a.contiguous(),
        other, scale, dx, dx if da is None else da, sums, length, other.stride(0), scale.stride(0),
        CHUNK=min(CHUNK, power_of_two(length)), ADD=a is not None, EPS=EPS, **_sizes(width),
    )  # fmt: skip
    return dx, da, sums[:, 0] if chunks == 1 else sums.sum(1)


@torch.library.custom_op("flowzoo::add_norm", mutates_args=())
def add_norm(x: Tensor, a: Tensor, bias: Tensor, gate: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """y = x + gate (a + bias) and norm(y) (1 + scale) + shift.

    x, a [N, L, D]; bias [G, D]; gate, shift, scale [N, D], rows of any stride. y has x's precision, the other shift's.
    """
    return _run_forward(x, (a, bias, gate), shift, scale)


@add_norm.register_fake
def _(x: Tensor, a: Tensor, bias: Tensor, gate: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=shift.dtype)


@torch.library.custom_op("flowzoo::add_norm_backward", mutates_args=())
def add_norm_backward(
    dy: Tensor, dh: Tensor, y: Tensor, a: Tensor, bias: Tensor, gate: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, a, bias, gate, shift and scale."""
    dx, da, sums = _run_backward(dh, dy, y, a, gate, scale)
    assert da is not None
    shift_sum, scale_sum, gate_sum, dx_sum = sums.unbind(1)
    own = bias.float().repeat_interleave(len(gate) // len(bias), 0)
    half = gate.dtype
    d_bias = summed(gate * dx_sum, len(bias)).to(bias.dtype)
    return (
        dx,
        da,
        d_bias,
        (gate_sum + own * dx_sum).to(half, copy=True),
        shift_sum.to(half, copy=True),
        scale_sum.to(half, copy=True),
    )


@add_norm_backward.register_fake
def _(
    dy: Tensor, dh: Tensor, y: Tensor, a: Tensor, bias: Tensor, gate: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dx, da, d_bias, d_gate, d_shift, d_scale = (x.new_empty(x.shape) for x in (y, a, bias, gate, gate, gate))
    return dx, da, d_bias, d_gate, d_shift, d_scale


def _setup_add(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    _, a, bias, gate, _, scale = inputs
    ctx.save_for_backward(output[0], a, bias, gate, scale)


def _backward_add(ctx: Any, dy: Tensor | None, dh: Tensor | None) -> tuple[Tensor, ...]:
    y, a, bias, gate, scale = ctx.saved_tensors
    dy = torch.zeros_like(y) if dy is None else dy
    dh = torch.zeros_like(a) if dh is None else dh
    return add_norm_backward(dy, dh, y, a, bias, gate, scale)


add_norm.register_autograd(_backward_add, setup_context=_setup_add)
add_norm.register_vmap(under_vmap(add_norm))


@torch.library.custom_op("flowzoo::modulated_norm", mutates_args=())
def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift: x [N, L, D], shift and scale [N, D] -> like x in shift's precision."""
    return _run_forward(x, None, shift, scale)[1]


@modulated_norm.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=shift.dtype)


@torch.library.custom_op("flowzoo::modulated_norm_backward", mutates_args=())
def modulated_norm_backward(dh: Tensor, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, shift and scale."""
    dx, _, sums = _run_backward(dh, None, x, None, None, scale)
    return dx, sums[:, 0].to(scale.dtype, copy=True), sums[:, 1].to(scale.dtype, copy=True)


@modulated_norm_backward.register_fake
def _(dh: Tensor, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), scale.new_empty(scale.shape), scale.new_empty(scale.shape)


def _setup_norm(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    x, _, scale = inputs
    ctx.save_for_backward(x, scale)


def _backward_norm(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return modulated_norm_backward(dh, *ctx.saved_tensors)


modulated_norm.register_autograd(_backward_norm, setup_context=_setup_norm)
modulated_norm.register_vmap(under_vmap(modulated_norm))
