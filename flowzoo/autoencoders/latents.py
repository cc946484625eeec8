"""What turns uint8 images into what the backbone sees, and back: an autoencoder whose latents are normalised."""

from collections.abc import Sequence
from hashlib import sha256

import torch
from torch import Tensor, nn

from flowzoo.autoencoders.autoencoder import Autoencoder
from flowzoo.autoencoders.pieces import Pieces


class Latents(nn.Module):
    """An autoencoder's latents, normalised per channel to zero mean and unit deviation (paper B.2), times `gain`.

    Channel i is (x_i - mean_i) / std_i * r_i * gain, with r_i = std_i^g for g = `spectrum_power`, all r_i divided by
    the root of their mean square: the mean variance of the channels stays gain^2. g = 0 makes all channels alike, g = 1
    gives them back their share of the variance.

    mean, std: one number a channel, in the autoencoder's own units (`flowzoo.autoencoders.statistics.measure`).
    ValueError where their number is not that of the channels or a deviation is not positive.
    """

    _scale: Tensor
    _shift: Tensor

    def __init__(
        self,
        autoencoder: Autoencoder,
        mean: Sequence[float],
        std: Sequence[float],
        gain: float = 1.0,
        spectrum_power: float = 0.0,
    ) -> None:
        super().__init__()
        channels = autoencoder.channels
        if len(mean) != channels or len(std) != channels:
            raise ValueError(
                f"mean={list(mean)} and std={list(std)} must have one number for each of {channels} channels"
            )
        if min(std) <= 0:
            raise ValueError(f"std={list(std)} must be above 0: a channel of one value cannot be normalised")
        if not gain > 0:
            raise ValueError(f"gain={gain}: allowed is a number greater than 0")
        self.autoencoder = autoencoder
        deviation = torch.tensor(list(std), dtype=torch.float64)
        relative = deviation**spectrum_power
        scale = deviation / (relative / relative.square().mean().sqrt() * gain)
        shift = torch.tensor(list(mean), dtype=torch.float64)
        self.register_buffer("_scale", scale.float()[:, None, None], persistent=False)
        self.register_buffer("_shift", shift.float()[:, None, None], persistent=False)
        told = ("latents", autoencoder.fingerprint, list(mean), list(std), float(gain), float(spectrum_power))
        self.fingerprint = sha256(repr(told).encode()).hexdigest()[:16]
        self.statistics = _rounded(mean, std)
        self._pieces = Pieces()

    @property
    def channels(self) -> int:
        """c of what the backbone sees."""
        return self.autoencoder.channels

    @property
    def affine(self) -> tuple[list[float], list[float]]:
        """(scale, shift), one number a channel: scale z + shift are the autoencoder's own latents."""
        return self._scale.flatten().tolist(), self._shift.flatten().tolist()

    @property
    def device(self) -> torch.device:
        return self._scale.device

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of what the backbone sees, for images of (H, W) pixels. ValueError where f does not divide them."""
        f = self.autoencoder.factor
        height, width = size
        if height % f or width % f:
            raise ValueError(
                f"images of {height} x {width} pixels: allowed are multiples of {f}, the autoencoder's factor"
            )
        return height // f, width // f

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> float32 [n, c, h, w], normalised; float64 in a module turned double."""
        return self.scaled(self.centred(images))

    @torch.no_grad()
    def centred(self, images: Tensor) -> Tensor:
        """As `encode`, in units of the autoencoder, less the mean: what does not depend on `gain` and the spectrum."""
        self.latent_size((images.shape[-2], images.shape[-1]))
        with torch.autocast(images.device.type, enabled=False):  # a training loop's bf16 must not change the data
            return self._pieces(self._centred, images, images.shape[-2] * images.shape[-1])

    def _centred(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images) - self._shift

    def scaled(self, centred: Tensor) -> Tensor:
        """What `centred` gave, in any float type -> normalised, as `encode` gives it."""
        return centred.to(self._scale.dtype) / self._scale

    @torch.no_grad()
    def decode(self, x0: Tensor) -> Tensor:
        """Normalised [n, c, h, w] of any float type -> uint8 [n, C, H, W]."""
        pixels = x0.shape[-2] * x0.shape[-1] * self.autoencoder.factor**2
        with torch.autocast(x0.device.type, enabled=False):
            return self._pieces(self._decode, x0, pixels)

    def _decode(self, x0: Tensor) -> Tensor:
        return self.autoencoder.decode(x0.float() * self._scale + self._shift)


def _rounded(mean: Sequence[float], std: Sequence[float]) -> str:
    """A fingerprint of the statistics to about three digits.

    Other machines measure them with other rounding, of which the fingerprint of the latents tells every bit.
    """
    told = [(f"{s:.2e}", round(m / s, 2) + 0.0) for m, s in zip(mean, std, strict=True)]
    return sha256(repr(told).encode()).hexdigest()[:8]
