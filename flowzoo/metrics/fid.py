"""Frechet distance between feature distributions, and the reference it is measured from."""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from flowzoo.autoencoders.latents import Latents
from flowzoo.data.source import Source
from flowzoo.metrics.metric import HeldOut, Made, evenly_spaced
from flowzoo.metrics.moments import Moments, StackedMoments
from flowzoo.runs.files import share


class FewSamples(UserWarning):
    """FID is biased upwards below ten samples a dimension."""


def no_fid(n: int, dim: int) -> str:
    """Why n samples have no FID; empty where they have one."""
    return (
        f"FID is not given: {n} images in {dim} dimensions have a singular covariance, and more than {dim} are needed "
        f"(at least {10 * dim} are better)"
        if n <= dim
        else ""
    )


def few_samples(n: int, dim: int) -> str:
    """What FewSamples says of n samples; empty where they are enough."""
    return (
        f"{n} images are few for FID in {dim} dimensions, which is biased upwards below {10 * dim}: compare it at "
        "equal numbers only"
        if n < 10 * dim
        else ""
    )


def frechet_distance(one: Moments, other: Moments) -> float:
    """|mean difference|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, eq. 6).

    Not finite where the features are not. The bias grows as 1/N, so only distances at equal N and reference compare;
    FewSamples warns below N = 10 D.

    Raises:
        ValueError: the dimensions differ, or N <= D on a side, which makes its covariance singular.
    """
    if one.dim != other.dim:
        raise ValueError(f"Frechet distance between {one.dim} and {other.dim} dimensions is not defined")
    least = min(one.count, other.count)
    if told := no_fid(least, one.dim):
        raise ValueError(told)
    if told := few_samples(least, one.dim):
        warnings.warn(told, FewSamples, stacklevel=2)
    c1, c2 = one.covariance, other.covariance
    if not (c1.isfinite().all() and c2.isfinite().all()):
        return math.nan
    # C1 C2 has the eigenvalues of the symmetric F^T C2 F with C1 = F F^T; negative ones are rounding.
    factor = _factor(c1)
    cross = torch.linalg.eigvalsh(factor.T @ c2 @ factor).clamp(min=0).sqrt().sum()
    return float(one.mean_less(other).square().sum() + c1.trace() + c2.trace() - 2 * cross)


def _factor(covariance: Tensor) -> Tensor:
    """F with F F^T = covariance, [D, D]."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:  # of lower rank, where a feature is constant
        values, vectors = torch.linalg.eigh(covariance)
        factor = vectors * values.clamp(min=0).sqrt()
    return factor


class Features(Protocol):
    """What is needed of an extractor."""

    dim: int

    def images(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> [n, dim]."""


def reference_moments(
    extractor: Features,
    source: Source,
    n: int,
    identity: Mapping[str, Any],
    cache: Path | None = None,
    latents: Latents | None = None,
) -> Moments:
    """Moments of `n` evenly spaced images of `source`, computed once; through `latents` if given, on their device.

    The cache's key holds all that they depend on: `identity`, which is all that decides the extractor's features, the
    source's fingerprint, n, and the latents' fingerprint.
    """
    if not 0 < n <= len(source):
        raise ValueError(f"a reference of n={n} images; allowed: 1 to {len(source)}, the images of {source.name}")
    told = [dict(identity), source.fingerprint, n, *([latents.fingerprint] if latents else [])]
    key = json.dumps(told, sort_keys=True)
    path = cache / f"moments-{sha256(key.encode()).hexdigest()[:20]}.safetensors" if cache else None
    if path and path.is_file():
        return Moments.load(path)
    moments = Moments(extractor.dim)
    for images in evenly_spaced(source, n, latents):
        moments.update(extractor.images(images))
    if path is None:
        return moments
    with suppress(OSError, SafetensorError):  # beside a run that was moved one may not write; then it is computed again
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        moments.save(part)
        share(part)
        part.replace(path)
    return moments


class FID:
    """The Frechet distance between samples and held-out images, `fid`; none where either are too few.

    `fid_decoded` is the distance to the same images encoded and decoded: what the autoencoder loses is no fault of the
    samples.
    """

    columns: Mapping[str, Literal["min", "max"]] = {"fid": "min", "fid_decoded": "min"}
    prompts: Sequence[str] | None = None
    identity: Mapping[str, Any] = {"name": "fid"}
    quality: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.references: dict[str, Moments] = {}  # by column
        self.none = ""  # why there is no FID

    def begin(self, held_out: HeldOut) -> str:
        least, dim = min(held_out.samples, held_out.n), held_out.extractor.dim
        against = f"evaluation.samples={held_out.samples} against {held_out.n} held-out images: "
        self.none = no_fid(least, dim) and against + no_fid(least, dim)
        if not self.none:
            those = (held_out.extractor, held_out.source, held_out.n, held_out.identity, held_out.cache)
            real = reference_moments(*those)
            decoded = reference_moments(*those, held_out.latents) if held_out.latents else real
            self.references = {"fid": real, "fid_decoded": decoded}
        return self.none or few_samples(least, dim)

    def statistics(self) -> "Distances":
        return Distances(self.columns, self.references, lambda made: made.features)


class Distances:
    """Frechet distances of the features that `features_of` gives, [M, n, dim], to a reference a column."""

    def __init__(
        self, columns: Iterable[str], references: Mapping[str, Moments], features_of: Callable[[Made], Tensor]
    ) -> None:
        """Without `references` there are no distances."""
        self._columns, self._references, self._features_of = list(columns), references, features_of
        self._moments = StackedMoments()

    def update(self, made: Made) -> None:
        self._moments.update(self._features_of(made))

    def values(self) -> list[dict[str, float | None]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewSamples)  # said at the start
            return [self._distances(one) for one in self._moments.each()]

    def _distances(self, one: Moments) -> dict[str, float | None]:
        if not self._references:
            return dict.fromkeys(self._columns)
        distinct = {id(reference): reference for reference in self._references.values()}
        found = {key: frechet_distance(one, reference) for key, reference in distinct.items()}
        return {name: found[id(self._references[name])] for name in self._columns}
