"""How the kernels become operators of torch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import triton  # comes with torch where there are GPUs of its kind
    import triton.language as tl

    TRITON = True
except ImportError:
    TRITON = False

HALF = (torch.bfloat16, torch.float16)
EPS = 1e-6  # of every norm


if TRITON:
    # Of kernels that are launched: compiled once for all lengths and numbers, not anew for those that 16 divides.
    kernel = triton.jit(do_not_specialize=("first", "L", "blocks", "LQ", "LK", "n", "rows", "chunks"))

    @kernel
    def _sum_rows(x, out, rows, C, SLICE: tl.constexpr, R: tl.constexpr, W: tl.constexpr):
        part, group = tl.program_id(1), tl.program_id(2).to(tl.int64)
        col = tl.program_id(0) * W + tl.arange(0, W)[None]
        total = tl.zeros((R, W), tl.float32)
        for first in range(part * SLICE, tl.minimum(rows, (part + 1) * SLICE), R):
            row = first + tl.arange(0, R)[:, None]
            total += tl.load(x + (group * rows + row) * C + col, mask=(row < rows) & (col < C), other=0)
        place = out + (group * tl.num_programs(1) + part) * C + col
        tl.store(place, tl.sum(total, 0)[None], mask=col < C)


SLICE = 512  # rows that a program sums


def under_vmap(op: Callable[..., Any]) -> Callable[..., Any]:
    """The rule of an operator whose tensors all begin with samples or groups: the mapped axis joins that axis."""

    def rule(info: Any, in_dims: Sequence[int | None], *args: Any) -> Any:
        size = info.batch_size
        merged = [_merged(x, dim, size) if isinstance(x, Tensor) else x for x, dim in zip(args, in_dims, strict=True)]
        out = op(*merged)
        if isinstance(out, Tensor):
            return out.unflatten(0, (size, -1)), 0
        return tuple(x.unflatten(0, (size, -1)) for x in out), (0,) * len(out)

    return rule


def _merged(x: Tensor, dim: int | None, size: int) -> Tensor:
    x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def power_of_two(n: int) -> int:
    """The next power of two, n itself if it is one."""
    return 1 << (n - 1).bit_length()


def summed(parts: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """[N, ..., C] -> [G, C]: over the samples of each group and all axes between, in float32 and rounded once."""
    width = parts.shape[-1]
    rows = parts.numel() // (groups * width)
    slices = max(1, triton.cdiv(rows, SLICE))
    out = parts.new_empty(groups, slices, width, dtype=dtype if slices == 1 else torch.float32)
    _sum_rows[(triton.cdiv(width, 32), slices, groups)](parts, out, rows, width, SLICE=SLICE, R=64, W=32)
    return out[:, 0] if slices == 1 else summed(out, groups, dtype)
