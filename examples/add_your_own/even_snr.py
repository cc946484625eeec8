"""A sampling grid of your own: steps that are equal in the log-SNR (Lu et al. 2022, DPM-Solver)."""

import math

import torch
from torch import Tensor

from flowzoo.formulation.formulation import Formulation
from flowzoo.sampling.grid import Grid


class EvenSNR(Grid):
    """Levels sigma = b/a, evenly spaced in ln sigma from `high`, or the path's start if lower, to `low`; then 0."""

    name = "even_snr"

    def __init__(self, high: float = 80.0, low: float = 0.01) -> None:
        if not 0 < low < high:
            raise ValueError(f"EvenSNR's low={low} and high={high}: allowed is 0 < low < high")
        self.high, self.low = high, low

    def sigmas(self, formulation: Formulation, steps: int) -> Tensor:
        """float64 [steps + 1], the last 0."""
        top = math.log(min(self.high, formulation.sigma_start))
        levels = torch.linspace(top, math.log(self.low), steps, dtype=torch.float64).exp()
        return torch.cat([levels, levels.new_zeros(1)])
