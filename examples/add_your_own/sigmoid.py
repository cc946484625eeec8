"""A weighting of your own: the sigmoid of the log-SNR (Kingma and Gao 2023; Hoogeboom et al. 2024)."""

import torch
from torch import Tensor

from flowzoo.formulation.weighting import Weighting


class Sigmoid(Weighting):
    """w = sigmoid(bias - log-SNR) of the noise's error: levels with less noise than exp(bias) count less."""

    def __init__(self, bias: float) -> None:
        self.bias = bias

    def of_noise(self, sigma: Tensor) -> Tensor:
        return torch.sigmoid(self.bias + 2 * sigma.log())  # log-SNR = -2 ln sigma
