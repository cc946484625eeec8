"""A gated update of the residual stream and the modulated layer norm of the sum, in one pass each way."""

from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import EPS, TRITON, power_of_two, summed, under_vmap

if TRITON:
    import triton
    import triton.language as tl

    from flowzoo.backbones.fused.operator import kernel

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
    def _keep(stats, i, first, L, mean, r, R: tl.constexpr):
        """Mean and factor of every token for the way back."""
        row = first + tl.arange(0, R)
        place = stats + (i * L + row) * 2
        tl.store(place, mean, mask=row < L)
        tl.store(place + 1, r, mask=row < L)

    @triton.jit
    def _kept(stats, i, first, L, R: tl.constexpr):
        """They again [R, 1]; beyond the end the factor is 0, and so is the gradient."""
        row = first + tl.arange(0, R)[:, None]
        place = stats + (i * L + row) * 2
        return tl.load(place, mask=row < L, other=0), tl.load(place + 1, mask=row < L, other=0)

    @kernel
    def _norm_forward(
        x, a, bias, gate, shift, scale, y, h, stats, L, n, gate_stride, shift_stride, scale_stride,
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
        mean = tl.sum(v, 1) / D
        d = tl.where(ok, v - mean[:, None], 0)
        r = tl.rsqrt(tl.sum(d * d, 1) / D + EPS)
        _keep(stats, i, tl.program_id(1) * R, L, mean, r, R)
        normed = d * r[:, None]
        out = normed * (1 + _vector(scale, i, scale_stride, D, W)) + _vector(shift, i, shift_stride, D, W)
        tl.store(h + at, out, mask=ok)

    @kernel
    def _norm_backward(
        dh, dy, y, stats, a, gate, scale, dx, da, sums, L, gate_stride, scale_stride,
        D: tl.constexpr, W: tl.constexpr, R: tl.constexpr, CHUNK: tl.constexpr, ADD: tl.constexpr,
    ):  # fmt: skip
        i, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
        factor = 1 + _vector(scale, i, scale_stride, D, W)
        shift_sum, scale_sum = tl.zeros((R, W), tl.float32), tl.zeros((R, W), tl.float32)
        if ADD:
            g = _vector(gate, i, gate_stride, D, W)
            gate_sum, dx_sum = tl.zeros((R, W), tl.float32), tl.zeros((R, W), tl.float32)
        for first in range(0, CHUNK, R):
            at, ok = _rows(chunk * CHUNK + first, i, L, D, R, W)
            mean, r = _kept(stats, i, chunk * CHUNK + first, L, R)
            normed = (tl.load(y + at, mask=ok, other=0).to(tl.float32) - mean) * r
            out = tl.load(dh + at, mask=ok, other=0).to(tl.float32)
            shift_sum += out
            scale_sum += out * normed
            inner = out * factor
            # layer norm backwards: what is left of `inner` without its mean and its share along `normed`
            grad = r * (inner - tl.sum(inner, 1)[:, None] / D - normed * (tl.sum(inner * normed, 1)[:, None] / D))
            if ADD:
                grad += tl.load(dy + at, mask=ok, other=0).to(tl.float32)
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

    @kernel
    def _norm_finish(
        sums, bias, gate, d_shift, d_scale, d_gate, bias_parts, n, chunks, gate_stride, D,
        C: tl.constexpr, ADD: tl.constexpr,
    ):  # fmt: skip
        """Gradients of one sample's vectors from the sums over its chunks, and its part of the bias's gradient."""
        i = tl.program_id(0).to(tl.int64)
        col = tl.program_id(1) * C + tl.arange(0, C)
        ok = col < D
        shift_sum, scale_sum = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
        gate_sum, dx_sum = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
        for chunk in range(chunks):
            place = sums + (i * chunks + chunk) * (4 if ADD else 2) * D + col
            shift_sum += tl.load(place, mask=ok, other=0)
            scale_sum += tl.load(place + D, mask=ok, other=0)
            if ADD:
                gate_sum += tl.load(place + 2 * D, mask=ok, other=0)
                dx_sum += tl.load(place + 3 * D, mask=ok, other=0)
        tl.store(d_shift + i * D + col, shift_sum, mask=ok)
        tl.store(d_scale + i * D + col, scale_sum, mask=ok)
        if ADD:
            own = tl.load(bias + i // n * D + col, mask=ok, other=0).to(tl.float32)
            tl.store(d_gate + i * D + col, gate_sum + own * dx_sum, mask=ok)
            g = tl.load(gate + i * gate_stride + col, mask=ok, other=0).to(tl.float32)
            tl.store(bias_parts + i * D + col, g * dx_sum, mask=ok)


def _sizes(width: int) -> dict[str, int]:
    w = power_of_two(width)
    return {"D": width, "W": w, "R": max(1, 1024 // w), "num_warps": 2 if w <= 1024 else 4}


PROGRAMS = 396  # at least so many on the way back, three a processor of an H100, if there are rows for them
COLUMNS = 256  # whose sums one program finishes


def _sizes_backward(n: int, length: int, width: int) -> dict[str, int]:
    """A program sums over CHUNK tokens of one sample: the fewer, the more programs, and sums to be added afterwards."""
    w = power_of_two(width)
    rows, warps = next(made for limit, *made in ((512, 4, 2), (1024, 2, 2), (2048, 2, 4), (w, 1, 8)) if w <= limit)
    chunk = min(64, power_of_two(length))
    while chunk > 16 and n * triton.cdiv(length, chunk) < PROGRAMS:
        chunk //= 2
    return {"D": width, "W": w, "R": min(rows, chunk), "CHUNK": chunk, "num_warps": warps}


def _run_forward(
    x: Tensor, update: tuple[Tensor, Tensor, Tensor] | None, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n, length, width = x.shape
    x = x.contiguous()
    h, stats = torch.empty_like(x, dtype=shift.dtype), _stats_like(x)
    y = x if update is None else torch.empty_like(x)
    a, bias, gate = (x, x, shift) if update is None else update
    sizes = _sizes(width)
    _norm_forward[(n, triton.cdiv(length, sizes["R"]))](
        x, a.contiguous(), bias.contiguous(), gate, shift, scale, y, h, stats, length, n // len(bias),
        gate.stride(0), shift.stride(0), scale.stride(0), ADD=update is not None, EPS=EPS, **sizes,
    )  # fmt: skip
    return y, h, stats


def _run_backward(
    dh: Tensor, dy: Tensor | None, y: Tensor, stats: Tensor, update: tuple[Tensor, Tensor, Tensor] | None, scale: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, ...], Tensor]:
    """Gradients of the sum, of what was added, of shift, scale and gate, and every sample's part of the bias's."""
    n, length, width = y.shape
    sizes = _sizes_backward(n, length, width)
    chunks = triton.cdiv(length, sizes["CHUNK"])
    add = update is not None
    a, bias, gate = (y, scale, scale) if update is None else (update[0].contiguous(), update[1].contiguous(), update[2])
    dx = torch.empty_like(y, memory_format=torch.contiguous_format)
    da = torch.empty_like(a) if add else dx
    sums = y.new_empty(n, chunks, 4 if add else 2, width, dtype=torch.float32)
    _norm_backward[(n, chunks)](
        dh.contiguous(), dx if dy is None else dy.contiguous(), y.contiguous(), stats.contiguous(), a, gate, scale, dx,
        da, sums, length, gate.stride(0), scale.stride(0), ADD=add, **sizes,
    )  # fmt: skip
    vectors = tuple(scale.new_empty(scale.shape) for _ in range(3 if add else 2))
    parts = sums.new_empty(n, width) if add else sums
    _norm_finish[(n, triton.cdiv(width, COLUMNS))](
        sums, bias, gate, *vectors[:2], vectors[-1], parts, n // len(bias), chunks, gate.stride(0), width,
        C=COLUMNS, ADD=add,
    )  # fmt: skip
    return dx, da, vectors, parts


@torch.library.custom_op("flowzoo::add_norm", mutates_args=())
def _add_norm(
    x: Tensor, a: Tensor, bias: Tensor, gate: Tensor, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What `add_norm` says, and mean and factor of every token's norm [N, L, 2]."""
    return _run_forward(x, (a, bias, gate), shift, scale)


@_add_norm.register_fake
def _(x: Tensor, a: Tensor, bias: Tensor, gate: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=shift.dtype), _stats_like(x)


@torch.library.custom_op("flowzoo::add_norm_backward", mutates_args=())
def _add_norm_backward(
    dy: Tensor, dh: Tensor, y: Tensor, stats: Tensor, a: Tensor, bias: Tensor, gate: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, a, bias, gate, shift and scale."""
    dx, da, (d_shift, d_scale, d_gate), parts = _run_backward(dh, dy, y, stats, (a, bias, gate), scale)
    return dx, da, summed(parts, len(bias), bias.dtype), d_gate, d_shift, d_scale


@_add_norm_backward.register_fake
def _(
    dy: Tensor, dh: Tensor, y: Tensor, stats: Tensor, a: Tensor, bias: Tensor, gate: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dx, da, d_bias, d_gate, d_shift, d_scale = (x.new_empty(x.shape) for x in (y, a, bias, gate, gate, gate))
    return dx, da, d_bias, d_gate, d_shift, d_scale


def _setup_add(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, a, bias, gate, _, scale = inputs
    y, _, stats = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y, stats, a, bias, gate, scale)


def _backward_add(ctx: Any, dy: Tensor | None, dh: Tensor | None, _: None) -> tuple[Tensor, ...]:
    y, stats, a, *vectors = ctx.saved_tensors
    dy = torch.zeros_like(y) if dy is None else dy
    dh = torch.zeros_like(a) if dh is None else dh
    return _add_norm_backward(dy, dh, y, stats, a, *vectors)


_add_norm.register_autograd(_backward_add, setup_context=_setup_add)
_add_norm.register_vmap(under_vmap(_add_norm))


def add_norm(x: Tensor, a: Tensor, bias: Tensor, gate: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """y = x + gate (a + bias) and norm(y) (1 + scale) + shift.

    x, a [N, L, D]; bias [G, D]; gate, shift, scale [N, D], rows of any stride. y has x's precision, the other shift's.
    """
    y, h, _ = _add_norm(x, a, bias, gate, shift, scale)
    return y, h


@torch.library.custom_op("flowzoo::modulated_norm", mutates_args=())
def _modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """What `modulated_norm` says, and mean and factor of every token's norm [N, L, 2]."""
    return _run_forward(x, None, shift, scale)[1:]


@_modulated_norm.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=shift.dtype), _stats_like(x)


@torch.library.custom_op("flowzoo::modulated_norm_backward", mutates_args=())
def _modulated_norm_backward(dh: Tensor, x: Tensor, stats: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, shift and scale."""
    dx, _, (d_shift, d_scale), _ = _run_backward(dh, None, x, stats, None, scale)
    return dx, d_shift, d_scale


@_modulated_norm_backward.register_fake
def _(dh: Tensor, x: Tensor, stats: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), scale.new_empty(scale.shape), scale.new_empty(scale.shape)


def _setup_norm(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    x, _, scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, output[1], scale)


def _backward_norm(ctx: Any, dh: Tensor, _: None) -> tuple[Tensor, ...]:
    return _modulated_norm_backward(dh, *ctx.saved_tensors)


_modulated_norm.register_autograd(_backward_norm, setup_context=_setup_norm)
_modulated_norm.register_vmap(under_vmap(_modulated_norm))


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x) (1 + scale) + shift: x [N, L, D], shift and scale [N, D] -> like x in shift's precision."""
    return _modulated_norm(x, shift, scale)[0]


def _stats_like(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], 2, dtype=torch.float32)
