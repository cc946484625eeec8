"""Eigenvalues of latents against the singular values of their matrix, whichever of its sides is the longer."""

import pytest
import torch
from test_statistics import Squares
from torch import Tensor
from torch.testing import assert_close

from flowzoo.autoencoders import spectrum
from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pixels import Pixels
from flowzoo.autoencoders.spectrum import eigenvalues, energies, latents_of_some
from flowzoo.runs.files import Refused


def draws(n: int, dimensions: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.1, 4, dimensions)
    return 3 + scale * torch.randn(n, dimensions, generator=generator)


@pytest.mark.parametrize(("n", "dimensions"), [(200, 24), (24, 200), (24, 24)])
def test_eigenvalues_are_those_of_the_covariance(n: int, dimensions: int) -> None:
    x = draws(n, dimensions)
    singular = torch.linalg.svdvals((x - x.mean(0)).double())
    assert_close(eigenvalues(x), singular**2 / (n - 1), rtol=1e-6, atol=1e-6)
    values, squares = energies(x)
    assert_close(values, eigenvalues(x), rtol=1e-6, atol=1e-6)
    # each column has its eigenvalue, and each row sums to the image's distance from the mean
    assert_close(squares.double().sum(0) / (n - 1), values, rtol=1e-5, atol=1e-5)
    assert_close(squares.sum(1), (x - x.mean(0)).square().sum(1), rtol=1e-5, atol=0)


def test_the_latents_are_what_the_backbone_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Squares(60, 0)
    latents = Latents(Pixels(1), [128.0], [40.0], gain=2.0)
    x = latents_of_some(latents, images)
    expected = torch.from_numpy(images.images(range(60))).double().flatten(1)
    assert_close(x.double(), 2 * (expected - 128) / 40, rtol=0, atol=1e-5)
    assert len(latents_of_some(latents, images, 7)) == 7
    monkeypatch.setattr(spectrum, "SIDE", 32)  # 64 numbers an image are more than is decomposed at once
    assert len(latents_of_some(latents, images)) == 32
    monkeypatch.setattr(spectrum, "_ROOM", 640)
    assert len(latents_of_some(latents, images)) == 10


def test_one_image_has_no_spectrum() -> None:
    with pytest.raises(Refused, match="data squares: one image has no spectrum; allowed: 2 or more"):
        latents_of_some(Latents(Pixels(1), [128.0], [40.0]), Squares(1, 0))
