"""What a KL autoencoder is trained on: reconstruction, KL divergence, perceptual distance, and a critic's opinion.

Pure functions of what `KLNetwork.forward` gives for V networks at once; V = 1 for one alone.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class Perceptual(Protocol):
    """A frozen measure of how unlike images look (flowzoo/autoencoders/perceptual.py)."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Float [n, C, H, W] in -1..1, twice -> [n]; differentiable in x."""


@dataclass(frozen=True)
class KLLoss:
    """The mean absolute or squared error of the numbers of an image, plus weighted terms.

    kl: weight of the divergence in nats per number of the image; Rombach et al. 2022 have 1e-6.
    perceptual: the measure, or None for none; perceptual_weight: its weight.

    Raises ValueError for another norm, and for weights below 0.
    """

    norm: Literal["l1", "l2"] = "l1"
    kl: float = 1e-6
    perceptual: Perceptual | None = None
    perceptual_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in ("l1", "l2"):
            raise ValueError(f"norm={self.norm}: allowed are l1, l2")
        for name in ("kl", "perceptual_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: allowed is a number of at least 0")

    def __call__(self, back: Tensor, mean: Tensor, log_variance: Tensor, x: Tensor) -> Tensor:
        """[V] from the network's outputs [V, B, ...] and images x [V or 1, B, C, H, W], both in -1..1."""
        x = x.expand_as(back)
        error = back - x
        loss = (error.abs() if self.norm == "l1" else error.square()).flatten(1).mean(1)
        loss = loss + self.kl * divergence(mean, log_variance).mean(1) / x[0, 0].numel()
        if self.perceptual is not None:
            each = self.perceptual(back.flatten(0, 1), x.flatten(0, 1))
            loss = loss + self.perceptual_weight * each.view(x.shape[:2]).mean(1)
        return loss


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, [V, B, c, h, w] -> [V, B]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(2).sum(2)


def critic_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the critic (Lim and Ye 2017): its outputs [V, ...] on images and reconstructions -> [V]."""
    return 0.5 * (F.relu(1 - real).flatten(1).mean(1) + F.relu(1 + fake).flatten(1).mean(1))


def fooling_loss(fake: Tensor) -> Tensor:
    """What an autoencoder adds to its loss, times a weight: the critic's outputs [V, ...] on reconstructions -> [V]."""
    return -fake.flatten(1).mean(1)


class PatchCritic(nn.Module):
    """Says of each patch of an image [n, C, H, W] in -1..1 how real it looks (Isola et al. 2017): [n, 1, h, w].

    layers: halvings; each doubles the width, up to 8 times. Group norm, so that images of a batch are judged alone.
    """

    def __init__(self, image_channels: int, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        net: list[nn.Module] = [
            nn.Conv2d(image_channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for i in range(1, layers):
            now, after = (width * min(2**k, 8) for k in (i - 1, i))
            net += [nn.Conv2d(now, after, 4, stride=2, padding=1, bias=False), nn.GroupNorm(8, after)]
            net += [nn.LeakyReLU(0.2)]
        net += [nn.Conv2d(width * min(2 ** (layers - 1), 8), 1, 3, padding=1)]
        self.net = nn.Sequential(*net)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
