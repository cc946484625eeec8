"""What a transformer block does between its matrix products, in as few passes over memory as there can be.

Triton kernels with derivatives of their own, as operators of torch that torch.compile and vmap know. Every one takes G
groups of samples, each group with weights of its own: a stack of variants is such groups, a network alone is one.
Sums over samples are taken in a fixed order: two equal runs give equal bits.

`wanted` says where they are used: on a GPU, in half precision. The same formulas in plain torch are in parts.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from flowzoo.backbones.fused.apart import attend
from flowzoo.backbones.fused.attention import LONGEST, joint_attention
from flowzoo.backbones.fused.flash import long_attention
from flowzoo.backbones.fused.gelu import bias_gelu
from flowzoo.backbones.fused.heads import HEADS
from flowzoo.backbones.fused.linear import product
from flowzoo.backbones.fused.norm import add_norm, modulated_norm
from flowzoo.backbones.fused.operator import HALF, TRITON

__all__ = [
    "HEADS",
    "LONGEST",
    "TRITON",
    "add_norm",
    "attend",
    "bias_gelu",
    "joint_attention",
    "long_attention",
    "modulated_norm",
    "product",
    "wanted",
    "without",
]

_allowed = TRITON


@contextmanager
def without() -> Iterator[None]:
    """Plain torch for the block, for comparisons."""
    global _allowed
    before, _allowed = _allowed, False
    try:
        yield
    finally:
        _allowed = before


def wanted(x: Tensor) -> bool:
    """Whether what comes out of a linear layer as `x` is to be treated here."""
    return _allowed and x.is_cuda and x.dtype in HALF
