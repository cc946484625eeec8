"""A timestep sampler of your own: logit t ~ Laplace(m, s), for rf the Laplace law of the log-SNR (Hang et al. 2024)."""

import torch
from torch import Tensor

from flowzoo.formulation.timestep import TimestepSampler


class LogitLaplace(TimestepSampler):
    """Sharper in the middle and heavier in the tails than the logit-normal; `s` > 0, else ValueError."""

    def __init__(self, m: float, s: float) -> None:
        if not s > 0:
            raise ValueError(f"LogitLaplace's s={s}: allowed is a number greater than 0")
        self.m, self.s = m, s

    def quantile(self, u: Tensor) -> Tensor:
        tail = torch.minimum(u, 1 - u)
        return torch.sigmoid(self.m + self.s * torch.sign(u - 0.5) * -torch.log(2 * tail))

    def density(self, t: Tensor) -> Tensor:
        return torch.exp(-(torch.logit(t) - self.m).abs() / self.s) / (2 * self.s * t * (1 - t))
