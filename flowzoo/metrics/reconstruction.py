"""How well an autoencoder gives images back: the columns of the paper's Table 3."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from flowzoo.autoencoders.autoencoder import Autoencoder
from flowzoo.autoencoders.pieces import Pieces
from flowzoo.autoencoders.statistics import some_images
from flowzoo.data.source import Source
from flowzoo.metrics.extractor import FeatureExtractor
from flowzoo.metrics.fid import FewSamples, frechet_distance, no_fid
from flowzoo.metrics.moments import Moments
from flowzoo.progress import track

WINDOW = 11  # pixels of an edge of SSIM's window
LPIPS_EDGE = 16  # pixels of an edge that VGG can halve four times


@dataclass(frozen=True)
class Reconstruction:
    """Means over images; None where a number cannot be said or was not asked for."""

    images: int
    psnr: float  # dB; infinite where an image came back as it was
    ssim: float | None
    rfid: float | None  # Frechet distance of reconstructions to the same images
    lpips: float | None
    kept: Tensor  # uint8 [2, n, C, H, W]: the first n images, and what became of them


@torch.no_grad()
def reconstruct(
    autoencoder: Autoencoder,
    source: Source,
    n: int,
    device: torch.device | str = "cpu",
    *,
    extractor: FeatureExtractor | None = None,
    perceptual: nn.Module | None = None,
    keep: int = 8,
) -> Reconstruction:
    """Encodes and decodes at most `n` evenly spaced images of `source`, and compares.

    Args:
        autoencoder, extractor, perceptual: on `device`. An extractor gives rfid, an LPIPS network gives lpips.
        keep: how many pairs are kept, spread over the images.
    """
    n = min(n, len(source))
    pieces = Pieces()
    numbers: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "lpips": []}
    moments = [Moments(extractor.dim) for _ in range(2)] if extractor else []
    kept: list[Tensor] = []
    wanted = set(torch.linspace(0, n - 1, min(keep, n)).round().int().tolist())
    edge, seen = min(source.size), 0
    for chunk in track(some_images(source, n), f"reconstructing {source.name}"):
        images = chunk.to(device)
        back = pieces(lambda x: autoencoder.decode(autoencoder.encode(x)), images, images.shape[-2] * images.shape[-1])
        numbers["psnr"].append(psnr(images, back))
        if edge >= WINDOW:
            numbers["ssim"].append(pieces(_pairwise(ssim), torch.stack([images, back], 1), 4 * edge**2))
        if perceptual is not None:
            measure = _pairwise(lambda x, y: lpips(x, y, perceptual))
            numbers["lpips"].append(pieces(measure, torch.stack([images, back], 1), 16 * edge**2).double())
        for own, x in zip(moments, (images, back), strict=False):
            assert extractor is not None
            own.update(extractor.images(x))
        for i in sorted(wanted & set(range(seen, seen + len(images)))):
            kept.append(torch.stack([images[i - seen], back[i - seen]]).cpu())
        seen += len(images)
    means = {name: float(torch.cat(each).mean()) if each else None for name, each in numbers.items()}
    rfid = None
    if extractor and not no_fid(n, extractor.dim):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewSamples)
            rfid = frechet_distance(*moments)
    assert means["psnr"] is not None
    return Reconstruction(n, means["psnr"], means["ssim"], rfid, means["lpips"], torch.stack(kept, 1))


def _pairwise(measure: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Of pairs [n, 2, C, H, W] in place of two batches."""
    return lambda pairs: measure(pairs[:, 0], pairs[:, 1])


def picture(found: Reconstruction) -> Tensor:
    """uint8 [2 n, C, H, W]: the images that were kept, then their reconstructions."""
    return found.kept.flatten(0, 1)


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
