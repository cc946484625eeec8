"""The interface of autoencoders: uint8 images to latents in units of their own, and back."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class Autoencoder(Protocol):
    """A frozen module; `Latents` normalises what it encodes and is what the rest of flowzoo sees.

    Its constructor gets `image_channels` beside its own config. Weights are float32; after `double()` they and the
    latents are float64. It may be called with any number of images: `Latents` cuts batches into pieces.
    """

    @property
    def image_channels(self) -> int:
        """C of the images."""

    @property
    def channels(self) -> int:
        """c of the latents."""

    @property
    def factor(self) -> int:
        """f, pixels per latent along each axis."""

    @property
    def fingerprint(self) -> str:
        """Changes with everything that decides latents and images: weights, fitted numbers."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> [n, c, H/f, W/f], the same for the same images; without gradient."""

    def decode(self, latents: Tensor) -> Tensor:
        """[n, c, h, w] of any float type -> uint8 [n, C, h f, w f]; without gradient."""

    def to(self, *args: Any) -> Any:
        """As nn.Module.to, in place."""


@runtime_checkable
class Fitted(Protocol):
    """What an autoencoder that is fitted to the training images has besides; a run keeps its `state_dict()`."""

    @property
    def told(self) -> str:
        """What the user should know of the fit, in a line; after `fit` or `load_state_dict`."""

    def fit(self, chunks: Iterable[Tensor]) -> Any:
        """From the images, uint8 [n, C, H, W] a chunk. ValueError where they cannot be encoded."""

    def state_dict(self) -> dict[str, Tensor]:
        """What was fitted, as nn.Module.state_dict."""

    def load_state_dict(self, state: dict[str, Tensor]) -> Any:
        """As nn.Module.load_state_dict, strict."""
