"""The random numbers of a training step: functions of (seed, step, purpose)."""

import torch
from torch import Tensor

from flowzoo.encoders.text import TextEncoders
from flowzoo.randomness import generator, uniform


def times(seed: int, step: int, n: int, device: torch.device) -> Tensor:
    """u [n], float64, from which formulations draw t."""
    return uniform((n,), generator(seed, step, "u", device))


def noise(seed: int, step: int, like: Tensor, n: int) -> Tensor:
    """eps [n, *like.shape[1:]], standard normal."""
    shape = (n, *like.shape[1:])
    return torch.randn(shape, generator=generator(seed, step, "eps", like.device), device=like.device, dtype=like.dtype)


def kept(seed: int, step: int, text: TextEncoders, n: int, device: torch.device) -> Tensor:
    """Which encoders are not dropped, bool [n, encoders] (paper, B.3)."""
    # The default type is float64 within a run in that precision: it would draw other numbers.
    shape, gen = (n, len(text.names)), generator(seed, step, "text", device)
    return torch.rand(shape, generator=gen, device=device, dtype=torch.float32) >= text.p_drop
