"""The Frechet distance in features that were never trained: a judge that has seen no image of any data set."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.metrics.extractor import resize
from flowzoo.metrics.fid import Distances, few_samples, no_fid, reference_moments
from flowzoo.metrics.metric import HeldOut, Made
from flowzoo.metrics.moments import Moments
from flowzoo.randomness import generator

VERSION = 1  # of the network
WIDTHS = (32, 64, 64)  # of the convolutions, each followed by ReLU and the mean of 2 x 2
SIZE = 32  # pixels that images are brought to
_CHUNK = 512


class RandomNetwork(nn.Module):
    """Three convolutions and a projection with Gaussian weights (He et al. 2015), the same everywhere.

    Naeem et al. 2020 (sec. 4.1) take the 64 outputs of a VGG16 with random weights as an embedding that no data set
    has shaped.
    """

    dim = 64

    def __init__(self) -> None:
        super().__init__()
        gen = generator(VERSION, 0, "random features")
        sizes = (3, *WIDTHS)
        self.kernels = nn.ParameterList(
            torch.randn(b, a, 3, 3, generator=gen) * (2 / (9 * a)) ** 0.5 for a, b in pairwise(sizes)
        )
        flat = WIDTHS[-1] * (SIZE >> len(WIDTHS)) ** 2
        self.projection = nn.Parameter(torch.randn(flat, self.dim, generator=gen) / flat**0.5)
        self.requires_grad_(False)

    @torch.inference_mode()
    def images(self, images: Tensor) -> Tensor:
        """uint8 [n, 1 or 3, H, W] of any size -> float32 [n, 64]."""
        self.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self._features(chunk) for chunk in images.split(_CHUNK)])

    def _features(self, images: Tensor) -> Tensor:
        x = resize(images, SIZE) / 127.5 - 1
        for kernel in self.kernels:
            x = F.avg_pool2d(F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), "replicate"), kernel)), 2)
        return x.flatten(1) @ self.projection


class RandomFID:
    """`fid_random`: the Frechet distance between samples and held-out images in the features of `RandomNetwork`.

    None where either are too few.
    """

    columns: Mapping[str, Literal["min", "max"]] = {"fid_random": "min"}
    prompts: Sequence[str] | None = None
    identity: Mapping[str, Any] = {"name": "fid_random", "version": VERSION}
    quality: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.network = RandomNetwork()
        self.references: dict[str, Moments] = {}

    def begin(self, held_out: HeldOut) -> str:
        least = min(held_out.samples, held_out.n)
        if told := no_fid(least, self.network.dim):
            return f"fid_random, {told}"
        self.network.to(held_out.device)
        reference = reference_moments(self.network, held_out.source, held_out.n, self.identity, held_out.cache)
        self.references = {"fid_random": reference}
        return few_samples(least, self.network.dim)

    def statistics(self) -> Distances:
        return Distances(self.columns, self.references, self._features)

    def _features(self, made: Made) -> Tensor:
        lead = made.images.shape[:2]
        finite = made.features.isfinite().all(-1, keepdim=True)
        return self.network.images(made.images.flatten(0, 1)).reshape(*lead, -1).masked_fill(~finite, torch.nan)
