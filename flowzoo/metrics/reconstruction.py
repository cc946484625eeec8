"""How well an autoencoder gives images back: the columns of the paper's Table 3, each image alone."""

from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure


def psnr(images: Tensor, back: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, of uint8 [n, C, H, W] twice: float64 [n]; infinite where they are equal."""
    error = (images.double() - back.double()).square().flatten(1).mean(1)
    return 10 * (255**2 / error).log10()


def ssim(images: Tensor, back: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, Gaussian window of 11 x 11) of uint8 [n, C, H, W] twice: float64 [n]."""
    found = structural_similarity_index_measure(back.double(), images.double(), data_range=255.0, reduction="none")
    assert isinstance(found, Tensor)
    return found.reshape(len(images))


def lpips(images: Tensor, back: Tensor, network: nn.Module) -> Tensor:
    """The paper's perceptual distance, by `flowzoo.autoencoders.perceptual.LPIPS`: uint8 [n, C, H, W] twice -> [n]."""
    return network(back.float() / 127.5 - 1, images.float() / 127.5 - 1)
