"""A schedule of your own: the cosine schedule with its log-SNR shifted (Hoogeboom et al. 2023, simple diffusion)."""

import math

import torch
from torch import Tensor

from flowzoo.formulation.schedule import Schedule, State


class ShiftedCosine(Schedule):
    """sigma = b/a = shift tan(pi t/2) with a^2 + b^2 = 1; `shift` > 0, 1 is the cosine schedule. Else ValueError.

    Images d pixels wide carry the noise of 64 pixels at shift = d/64.
    """

    def __init__(self, shift: float) -> None:
        if not 0 < shift < math.inf:
            raise ValueError(f"ShiftedCosine's shift={shift}: allowed is a number greater than 0")
        self.shift = shift

    def at_t(self, t: Tensor) -> State:
        # as a sine, cos(pi t/2) is exactly 0 at t = 1
        cos, sin = torch.sin(math.pi / 2 * (1 - t)), self.shift * torch.sin(math.pi / 2 * t)
        n = torch.hypot(cos, sin)
        a, b = cos / n, sin / n
        # with the angle atan(sigma): a = cos, b = sin of it, and its derivative in t is sigma' / (1 + sigma^2)
        slope = self.shift * math.pi / 2 / n**2
        return State(t, a, b, -slope * b, slope * a)

    def at_sigma(self, sigma: Tensor) -> State:
        return self.at_t(2 / math.pi * torch.atan(sigma / self.shift))
