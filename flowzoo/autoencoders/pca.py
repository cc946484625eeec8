"""Block-PCA: the first principal components of the blocks of an image, a linear autoencoder without training."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTORS = (2, 4, 8)
_NOTHING = 1e-10  # share of the largest variance below which a direction is only rounding


class BlockPCA(nn.Module):
    """Latents are the coordinates of each block of f x f pixels, in 0..1, along its first principal components.

    Linear and orthonormal, so the squared error of a reconstruction is the variance of the components left out. `fit`
    finds them; the covariance is a sum of whole numbers, so chunks and threads change nothing.

    Raises ValueError for a factor other than 2, 4, 8 and for more channels than a block has numbers.
    """

    basis: Tensor  # [c, C f^2], orthonormal rows, the component of the largest variance first
    center: Tensor  # [C f^2] mean of a block
    variances: Tensor  # [C f^2], float64, of all components, largest first

    def __init__(self, image_channels: int, factor: int, channels: int) -> None:
        super().__init__()
        if factor not in FACTORS:
            raise ValueError(f"factor={factor}: allowed are {', '.join(map(str, FACTORS))}")
        numbers = image_channels * factor**2
        if not 1 <= channels <= numbers:
            raise ValueError(
                f"channels={channels}: allowed are 1 to {numbers}, the numbers of a block of {factor} x {factor} pixels"
            )
        self.image_channels, self.factor, self.channels = image_channels, factor, channels
        self.register_buffer("basis", torch.zeros(channels, numbers))
        self.register_buffer("center", torch.zeros(numbers))
        self.register_buffer("variances", torch.zeros(numbers, dtype=torch.float64))

    @torch.no_grad()
    def fit(self, chunks: Iterable[Tensor]) -> "BlockPCA":
        """From images, uint8 [n, C, H, W] a chunk; float64, on the CPU, one pass.

        The sign of a component is that of its largest entry. Raises ValueError where the images have fewer directions
        of any variance than there are channels.
        """
        numbers = len(self.center)
        count, total, products = 0, torch.zeros(numbers).double(), torch.zeros(numbers, numbers).double()
        for images in chunks:
            x = F.pixel_unshuffle(images.cpu().double(), self.factor).transpose(0, 1).flatten(1)  # [C f^2, blocks]
            count += x.shape[1]
            total += x.sum(1)
            products += x @ x.T  # of whole numbers, exact below 2^53
        mean = total / count
        found, vectors = torch.linalg.eigh(products / count - mean[:, None] * mean)
        variances, basis = found.flip(0).clamp(min=0), vectors.T.flip(0)
        if (directions := int((variances > _NOTHING * variances[0]).sum())) < self.channels:
            raise ValueError(
                f"channels={self.channels}: allowed are 1 to {directions}, as the images vary in no more directions"
            )
        # of entries that are equal but for rounding the first one decides
        largest = (basis.abs() > basis.abs().amax(1, keepdim=True) * (1 - 1e-6)).int().argmax(1)
        basis = basis * basis.gather(1, largest[:, None]).sign()
        self.basis.copy_(basis[: self.channels])
        self.center.copy_(mean / 255)
        self.variances.copy_(variances / 255**2)
        return self

    @property
    def share(self) -> float:
        """Of the blocks' variance, what the channels keep: 0..1."""
        return float(self.variances[: self.channels].sum() / self.variances.sum())

    @property
    def told(self) -> str:
        f, numbers = self.factor, len(self.center)
        return (
            f"{self.channels} of the {numbers} principal components of {f} x {f} pixels, with {self.share:.1%} of "
            "their variance"
        )

    @property
    def fingerprint(self) -> str:
        fitted = sha256(repr(("pca", self.factor, self.channels)).encode())
        for x in (self.basis, self.center):
            fitted.update(x.float().cpu().contiguous().numpy().tobytes())
        return fitted.hexdigest()[:16]

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> [n, c, H/f, W/f], in pixel units 0..1. RuntimeError before it is fitted."""
        self._check_fitted()
        x = F.pixel_unshuffle(images.to(self.basis.dtype) / 255, self.factor) - self.center[:, None, None]
        with _exact_products():
            return torch.einsum("ck,nkhw->nchw", self.basis, x)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[n, c, h, w] -> uint8 [n, C, h f, w f]."""
        self._check_fitted()
        with _exact_products():
            x = torch.einsum("ck,nchw->nkhw", self.basis, latents.to(self.basis.dtype)) + self.center[:, None, None]
        return (255 * F.pixel_shuffle(x, self.factor)).round().clamp(0, 255).to(torch.uint8)

    def _check_fitted(self) -> None:
        if not len(self.basis) or not self.basis.any():
            raise RuntimeError("BlockPCA is not fitted: call fit(chunks of images), or load_state_dict")


@contextmanager
def _exact_products() -> Iterator[None]:
    """Products in full float32: with the 10 bits of TF32 not even all channels would give the image back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
