"""AdamW's update of V rows of weights, in place: in plain torch, and as a kernel that is one pass over memory."""

import torch
from torch import Tensor

from flowzoo.backbones.fused.operator import TRITON

BLOCK, WARPS = 256, 2  # measured on an H100 with 11 million to a billion weights a row

if TRITON:
    import triton
    import triton.language as tl

    @triton.jit(do_not_specialize=("P", "total"))
    def _adamw(
        flat, copy, m, v, gradient, alive, clip, decay, rate, root_bias, P, total, rest1, beta2, rest2, eps,
        COPY: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        begin = tl.program_id(0).to(tl.int64) * BLOCK
        at = begin + tl.arange(0, BLOCK)
        ok = at < total
        first = begin // P
        row = first + (at >= (first + 1) * P).to(tl.int64)  # no row is shorter than a block
        g = tl.load(gradient + at, mask=ok, other=0).to(tl.float32) * tl.load(clip + row, mask=ok, other=0)
        # by choice, never by a product: NaN times 0 is NaN
        g = tl.where(tl.load(alive + row, mask=ok, other=0) != 0, g, 0)
        old_m, old_v = tl.load(m + at, mask=ok, other=0), tl.load(v + at, mask=ok, other=0)
        new_m, new_v = old_m + rest1 * (g - old_m), beta2 * old_v + rest2 * g * g
        tl.store(m + at, new_m, mask=ok)
        tl.store(v + at, new_v, mask=ok)
        w = tl.load(flat + at, mask=ok, other=0) * tl.load(decay + row, mask=ok, other=0)
        w -= new_m / (tl.sqrt(new_v) / tl.load(root_bias) + eps) * tl.load(rate + row, mask=ok, other=0)
        tl.store(flat + at, w, mask=ok)
        if COPY:
            tl.store(copy + at, w, mask=ok)


def wanted(flat: Tensor) -> bool:
    """Whether the kernel is for these weights."""
    return TRITON and flat.is_cuda and flat.dtype == torch.float32


def adamw_step(
    flat: Tensor, copy: Tensor | None, m: Tensor, v: Tensor, gradient: Tensor,
    alive: Tensor, clip: Tensor, decay: Tensor, rate: Tensor, root_bias: Tensor, betas: tuple[float, float], eps: float,
) -> None:  # fmt: skip
    """One step of Loshchilov and Hutter 2019, algorithm 2, in torch.optim.AdamW's order.

    Weights `flat` and moments `m` and `v` [V, P]; `gradient` [V, P] in any precision, and so `copy`, which has the new
    weights afterwards; all contiguous. `clip`, `decay` and `rate` [V] are factors on gradient, weights and step;
    `root_bias` [] is the square root of the second moment's bias correction. Where `alive` [V] is False the gradient
    counts as 0, whatever it is.
    """
    if wanted(flat):
        width, total = flat.shape[1], flat.numel()
        block = min(BLOCK, 1 << (width.bit_length() - 1))  # a power of two, and at most a row
        _adamw[(triton.cdiv(total, block),)](
            flat, flat if copy is None else copy, m, v, gradient, alive, clip, decay, rate, root_bias, width, total,
            1 - betas[0], betas[1], 1 - betas[1], eps, COPY=copy is not None, BLOCK=block, num_warps=WARPS,
        )  # fmt: skip
        return
    # By choice, never by a product: NaN times 0 is NaN.
    g = torch.where(alive[:, None], gradient.to(flat.dtype) * clip[:, None], 0)
    m.lerp_(g, 1 - betas[0])
    v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
    flat.mul_(decay[:, None]).sub_(m / (v.sqrt() / root_bias + eps) * rate[:, None])
    if copy is not None:
        copy.copy_(flat)
