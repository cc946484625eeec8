"""A trained KL autoencoder, frozen."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowzoo.autoencoders.kl_network import KLNetwork, build_kl, to_float, to_uint8
from flowzoo.content import SHIPPED_KL, sha256_of
from flowzoo.network_file import KL, load_network, save_network


class KLAutoencoder(nn.Module):
    """Latents are the means of the posteriors.

    Args:
        image_channels: C of the images.
        weights: a file of flowzoo.train_autoencoder, which says factor, channels and widths; by default the shipped
            one, of shapes: f = 4, 8 channels.

    Raises:
        FileNotFoundError, ValueError: as `load_network`; ValueError where the weights are for other images.
    """

    def __init__(self, image_channels: int, weights: str | Path | None = None) -> None:
        super().__init__()
        weights = SHIPPED_KL if weights is None else weights
        network, self.about = load_kl(weights)
        if network.image_channels != image_channels:
            raise ValueError(
                f"weights={weights}: they are of images with {network.image_channels} channels; allowed are those of "
                f"images with {image_channels}"
            )
        self.network = network
        self.image_channels, self.channels, self.factor = image_channels, network.channels, network.factor
        self.fingerprint = sha256(repr(("kl", sha256_of(weights))).encode()).hexdigest()[:16]

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> [n, c, H/f, W/f]."""
        return self.network.encode(to_float(images, self._dtype)).mean

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[n, c, h, w] -> uint8 [n, C, h f, w f]."""
        return to_uint8(self.network.decode(latents.to(self._dtype)))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype


def save_kl(network: KLNetwork, path: Path, about: Mapping[str, Any]) -> None:
    """As `save_network`."""
    save_network(network, path, KL, architecture=network.architecture, about=about)


def load_kl(path: str | Path) -> tuple[KLNetwork, dict[str, Any]]:
    """As `load_network`. Raises FileNotFoundError and ValueError."""
    network, about = load_network(path, KL, build_kl)
    return cast(KLNetwork, network), about
