"""The predicted law, its intervals against new draws, and distances against formulas."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from flowzoo.advice.prediction import QUANTILES, Estimate, density, distance, levels, predict
from flowzoo.formulation.mixture import LogisticMixture
from flowzoo.formulation.names import TABLE

TRUE = 20 / torch.arange(1, 41, dtype=torch.float64)  # eigenvalues


def draws(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64)).Q
    return (TRUE.sqrt() * torch.randn(n, 40, generator=generator, dtype=torch.float64)) @ turn.T


def test_the_law_is_that_of_the_covariance() -> None:
    found, law = predict(draws(5000, 0)), LogisticMixture.of(TRUE)
    assert found.law.mean == pytest.approx(law.mean, abs=0.03)
    assert found.law.deviation == pytest.approx(law.deviation, abs=0.03)
    assert (found.images, found.dimensions, len(found.eigenvalues)) == (5000, 40, 40)
    assert found.share(1) == pytest.approx((TRUE[0] / TRUE.sum()).item(), abs=0.02)
    assert found.is_settled
    assert predict(draws(5000, 0)).law == found.law


def test_intervals_are_as_wide_as_new_images_spread() -> None:
    spread = [LogisticMixture.of(torch.linalg.eigvalsh(torch.cov(draws(400, seed).T))) for seed in range(60)]
    found = predict(draws(400, 99))
    for law, told in (([one.mean for one in spread], found.mean), ([one.deviation for one in spread], found.deviation)):
        assert (told.high - told.low) / (2 * 1.96) == pytest.approx(np.std(law), rel=0.35)
        assert told.low < told.value < told.high


def test_too_few_images_are_told() -> None:
    """Eigenvalues of few images are spread more than those of many: the law has moved when there are twice as many."""
    generator = torch.Generator().manual_seed(0)
    assert not predict(torch.randn(40, 400, generator=generator)).is_settled
    assert predict(torch.randn(4000, 40, generator=generator)).is_settled


def test_the_distance_of_shifted_laws_is_the_shift() -> None:
    assert distance(levels("rf/lognorm(0.50,0.60)"), levels("rf/lognorm(-0.50,0.60)")) == pytest.approx(1)
    assert distance(levels("edm(0.00,0.60)"), levels("rf/lognorm(0.00,0.60)")) == pytest.approx(0, abs=1e-9)
    # normal laws of one mean: the difference of deviations times E|n|
    apart = distance(levels("edm(0.00,0.60)"), levels("edm(0.00,1.20)"))
    assert apart == pytest.approx(0.6 * np.sqrt(2 / np.pi), rel=0.01)


def test_the_nearest_formulation_is_the_one_with_that_law() -> None:
    """A mixture of the bumps of many eigenvalues around 1 is nearly normal, as wide as the bumps and they."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(40, generator=generator, dtype=torch.float64).sort().values
    x = torch.randn(4000, 40, generator=generator, dtype=torch.float64) * (w / w.std()).exp()
    found = predict(x).nearest()
    assert {one.name for one in found} == set(TABLE)
    assert [one.distance.value for one in found] == sorted(one.distance.value for one in found)
    assert sum(one.nearest for one in found) == pytest.approx(1)
    assert found[0].nearest > 0.5
    assert all(one.distance.low <= one.distance.high for one in found)


@pytest.mark.parametrize(
    "name", ["rf", "rf/mode(1.29)", "rf/lognorm(0.50,0.60)", "edm(0.60,1.20)", "edm/cos", "v/linear"]
)
def test_densities_are_those_of_the_draws(name: str) -> None:
    x, u = levels(name).numpy(), QUANTILES.numpy()
    for low, high in ((100, 300), (450, 600), (700, 900)):
        grid = np.linspace(x[low], x[high], 2001)
        assert np.trapezoid(density(name, grid), grid) == pytest.approx(u[high] - u[low], abs=3e-3)


def test_an_estimate_holds_95_percent() -> None:
    one = Estimate.of(0.5, np.arange(1001) / 1000)
    assert (one.low, one.high) == (pytest.approx(0.025), pytest.approx(0.975))


def test_spectra_are_taken_as_they_are() -> None:
    x = draws(3000, 1)
    assert_close(predict(x).eigenvalues, torch.linalg.eigvalsh(torch.cov(x.T)).flip(0))
