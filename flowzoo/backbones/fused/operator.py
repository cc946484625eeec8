"""How the kernels become operators of torch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import triton  # noqa: F401 - comes with torch where there are GPUs of its kind

    TRITON = True
except ImportError:
    TRITON = False

HALF = (torch.bfloat16, torch.float16)
EPS = 1e-6  # of every norm


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


def register(op: Any, backward: Callable[..., tuple[Tensor, ...]]) -> None:
    """vmap's rule, and a derivative that needs all that the operator was given: backward(gradient, *inputs)."""

    def setup(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def way_back(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return backward(gradient, *ctx.saved_tensors)

    op.register_autograd(way_back, setup_context=setup)
    op.register_vmap(under_vmap(op))


def _merged(x: Tensor, dim: int | None, size: int) -> Tensor:
    x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def power_of_two(n: int) -> int:
    """The next power of two, n itself if it is one."""
    return 1 << (n - 1).bit_length()


def summed(parts: Tensor, groups: int) -> Tensor:
    """[N, ...] -> [G, ...]: over the samples of each group, in float32."""
    return parts.unflatten(0, (groups, -1)).sum(1)
