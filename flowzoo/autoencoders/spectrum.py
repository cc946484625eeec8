"""The spectrum of what the backbone sees: eigenvalues of the covariance of latents, over all of their numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.statistics import some_indices
from flowzoo.data.source import MEASURED, Encoded, Source
from flowzoo.runs.files import Refused

SIDE = 4096  # rows of the largest matrix that is decomposed, which takes seconds
_ROOM = 2**27  # numbers of the latents that are looked at, at most


def latents_of_some(
    latents: Latents, source: Source, count: int = MEASURED, device: torch.device | str = "cpu"
) -> Tensor:
    """Of at most `count` evenly spaced images, float32 [n, D] with D = c h w, on `device`; fewer where D is large.

    Raises Refused where there is but one image.
    """
    height, width = latents.latent_size(source.size)
    dimensions = latents.channels * height * width
    count = min(count, len(source), max(_ROOM // dimensions, 2), count if dimensions <= SIDE else SIDE)
    if count < 2:
        raise Refused(f"data {source.name}: one image has no spectrum; allowed: 2 or more")
    latents.to(device)
    chunks = some_indices(source, count)
    found = torch.cat([latents_at(latents, source, chunk, device).flatten(1) for chunk in chunks])
    latents.to("cpu")
    return found


def latents_at(latents: Latents, source: Source, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """What the backbone sees of some images, [n, c, h, w] on `device`, where `latents` is."""
    if isinstance(source, Encoded):
        return latents.scaled(source.latents(indices).to(device))
    return latents.encode(torch.from_numpy(source.images(indices)).to(device))


def eigenvalues(x: Tensor) -> Tensor:
    """Of the covariance of x [n, D], the min(n, D) that may be above 0, falling; float64, on the CPU."""
    return torch.linalg.eigvalsh(_smaller(_centred(x))).clamp(min=0).flip(0).cpu()


def energies(x: Tensor) -> tuple[Tensor, Tensor]:
    """`eigenvalues` [k], and the squares of the images' coordinates along the eigenvectors, float32 [n, k].

    A column sums to n - 1 times its eigenvalue.
    """
    x = _centred(x)
    values, vectors = (part.flip(-1) for part in torch.linalg.eigh(_smaller(x)))
    values = values.clamp(min=0)
    n, dimensions = x.shape
    # of x x^T the eigenvectors are the coordinates themselves, each column divided by its norm
    squares = (x.float() @ vectors.float()).square() if dimensions <= n else vectors.square() * values * (n - 1)
    return values.cpu(), squares.float().cpu()


def _centred(x: Tensor) -> Tensor:
    return x.double() - x.double().mean(0)


def _smaller(x: Tensor) -> Tensor:
    """The covariance [D, D], or [n, n] with the same eigenvalues above 0 where there are fewer images than numbers."""
    n, dimensions = x.shape
    return (x.T @ x if dimensions <= n else x @ x.T) / (n - 1)
