"""Weightings: factors of sigma on the loss. They change how much a level counts, never how often it is drawn.

A law of t with density pi and a weight of pi on uniform draws have the same expected loss; gradient noise, clipping and
AdamW tell them apart, which is what a weighting is for.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from flowzoo.formulation.loss import ratio
from flowzoo.formulation.part import POSITIVE, Part, Range
from flowzoo.formulation.schedule import State


class Weighting(Part, ABC):
    """A factor w(sigma) on the error of the noise, ||epshat - eps||^2, whatever the network predicts.

    So one weighting means the same for every prediction, as in the literature: on the prediction's own error the weight
    is w(sigma) (a/(a q - b p))^2. Derive from it to add one.
    """

    place = "weighting"

    def weight(self, s: State, determinant: Tensor) -> Tensor:
        """The weight on the squared error of the output, where `determinant` is the target's a q - b p."""
        return self.of_noise(s.sigma) * ratio(s.a, determinant).square()

    @abstractmethod
    def of_noise(self, sigma: Tensor) -> Tensor:
        """w(sigma) for sigma = b/a > 0, infinity included."""


class Plain(Weighting):
    """No weighting: the loss as it is measured."""

    word = "none"

    def weight(self, s: State, determinant: Tensor) -> Tensor:
        return torch.ones_like(s.a)

    def of_noise(self, sigma: Tensor) -> Tensor:
        raise NotImplementedError("without a weighting the loss is that of the prediction itself")


class _OfSNR(Weighting):
    """`gamma` > 0, else ValueError: the signal-to-noise ratio 1/sigma^2 from which on more signal counts no more."""

    ranges: ClassVar[Mapping[str, Range]] = {"gamma": POSITIVE}

    def __init__(self, gamma: float | Tensor) -> None:
        self.check(gamma=gamma)
        self.gamma = gamma


class MinSNR(_OfSNR):
    """Min-SNR-gamma (Hang et al. 2023, arXiv 2303.09556, sec. 3.4): min(SNR, gamma) on the error of x0."""

    word = "min_snr"

    def of_noise(self, sigma: Tensor) -> Tensor:
        # their weight for noise prediction, min(SNR, gamma)/SNR
        return (self.gamma * sigma.square()).clamp(max=1)


class SoftMinSNR(_OfSNR):
    """Soft-min-SNR (Crowson et al. 2024, arXiv 2401.11605): SNR gamma/(SNR + gamma) on the error of x0."""

    word = "soft_min_snr"

    def of_noise(self, sigma: Tensor) -> Tensor:
        # theirs over the SNR: gamma/(SNR + gamma)
        return self.gamma / (self.gamma + 1 / sigma.square())
