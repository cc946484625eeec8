"""The mixture of bumps that a spectrum makes: quantile, density and moments against formulas of its eigenvalues."""

import json
import math

import pytest
import torch
from torch.testing import assert_close

from flowzoo.formulation.mixture import LogisticMixture

U = torch.linspace(1e-7, 1 - 1e-7, 5001, dtype=torch.float64)
LEVELS = torch.linspace(-12, 12, 1001, dtype=torch.float64)
SPECTRA = {
    "one": torch.tensor([3.0]),
    "far apart": torch.tensor([1000.0, 1e-3, 1e-3]),
    "falling": 2000 / torch.arange(1, 3000).double() ** 2,
    "wide": torch.randn(3072, generator=torch.Generator().manual_seed(0)).mul(2).exp(),
}
every = pytest.mark.parametrize("w", SPECTRA.values(), ids=SPECTRA)


@every
def test_the_quantile_inverts_the_distribution(w: torch.Tensor) -> None:
    law = LogisticMixture.of(w)
    assert_close(law.cdf(law.quantile(U)), U, rtol=1e-8, atol=0)
    ends = torch.tensor([0.5 / 2**24, 1 - 0.5 / 2**24], dtype=torch.float64)  # the outermost draws of training
    assert_close(law.cdf(law.quantile(ends)), ends, rtol=1e-8, atol=0)
    assert_close(1 - law.cdf(law.quantile(ends)), 1 - ends, rtol=1e-7, atol=0)


@every
def test_the_density_is_the_slope_of_the_distribution(w: torch.Tensor) -> None:
    law = LogisticMixture.of(w)
    value, slope = torch.func.jvp(law.cdf, (LEVELS,), (torch.ones_like(LEVELS),))
    assert_close(law.density(LEVELS), slope)
    assert (value.diff() >= 0).all()


@every
def test_it_is_how_the_ideal_error_of_gaussian_data_changes(w: torch.Tensor) -> None:
    """Against autograd on sum w sigma^2/(w + sigma^2), over all eigenvalues, though near ones are one bump."""
    w = w.double()
    level = LEVELS.clone().requires_grad_(True)
    squared = torch.exp(2 * level)[:, None]
    error = (w * squared / (w + squared)).sum(1)
    (change,) = torch.autograd.grad(error.sum(), level)
    assert_close(LogisticMixture.of(w).density(LEVELS), change / w.sum(), rtol=0, atol=1e-4)


def test_one_eigenvalue_is_a_logistic_law() -> None:
    law = LogisticMixture.of([3.0])
    assert_close(law.quantile(U), math.log(3) / 2 + torch.logit(U) / 2)
    assert_close(law.cdf(LEVELS), torch.sigmoid(2 * LEVELS - math.log(3)))
    assert LogisticMixture.of([3.0] * 100).centres == pytest.approx(law.centres)


@every
def test_mean_and_deviation_are_those_of_its_quantiles(w: torch.Tensor) -> None:
    law = LogisticMixture.of(w)
    drawn = law.quantile((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)
    assert law.mean == pytest.approx(drawn.mean().item(), abs=1e-4)
    assert law.deviation == pytest.approx(drawn.std().item(), rel=1e-3)
    w = w.double()
    assert law.mean == pytest.approx(((w / w.sum()) * w.log() / 2).sum().item())


def test_it_comes_back_from_its_numbers() -> None:
    law = LogisticMixture.of(SPECTRA["wide"])
    assert LogisticMixture.read(json.loads(json.dumps(law.told))) == law
    assert len(law.centres) < 250


@pytest.mark.parametrize("bad", [[], [0.0, 0.0], [-1.0], [1.0, math.nan], [math.inf]])
def test_what_is_no_spectrum_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^eigenvalues: .*; allowed: "):
        LogisticMixture.of(bad)
