from pathlib import Path

import numpy as np
import pytest
import torch

from flowzoo.metrics.moments import Moments, StackedMoments


def features(n: int = 500, dim: int = 6) -> torch.Tensor:
    gen = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=gen) @ torch.randn(dim, dim, generator=gen) + 10


def test_moments_are_numpys() -> None:
    x = features()
    moments = Moments(6).update(x)
    np.testing.assert_allclose(moments.mean, x.double().mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-10)


def test_batches_their_order_and_merging_do_not_matter() -> None:
    x = features()
    whole = Moments(6).update(x)
    parts = list(x.split([1, 99, 150, 250]))
    forth, back = Moments(6), Moments(6)
    for part in parts:
        forth.update(part)
    for part in reversed(parts):
        back.update(part)
    merged = Moments(6).update(x[:77]).merge(Moments(6).update(x[77:]))
    for other in (forth, back, merged):
        assert other.count == whole.count
        torch.testing.assert_close(other.mean, whole.mean, rtol=1e-13, atol=0)
        torch.testing.assert_close(other.covariance, whole.covariance, rtol=1e-10, atol=1e-12)


def test_saved_moments_are_the_same(tmp_path: Path) -> None:
    moments = Moments(6).update(features())
    moments.save(tmp_path / "m")
    again = Moments.load(tmp_path / "m")
    assert (again.count, again.dim) == (moments.count, moments.dim)
    assert torch.equal(again.shift, moments.shift)
    assert torch.equal(again.total, moments.total)
    assert torch.equal(again.outer, moments.outer)


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[n, 6\], got \[3, 5\]"):
        Moments(6).update(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="cannot be merged"):
        Moments(6).merge(Moments(5))


def test_moments_of_many_sets_are_those_of_each() -> None:
    gen = torch.Generator().manual_seed(1)
    features = torch.randn(3, 50, 4, generator=gen, dtype=torch.float64)
    stacked = StackedMoments()
    assert stacked.each() == []
    for part in features.split(20, dim=1):
        stacked.update(part)
    for one, x in zip(stacked.each(), features, strict=True):
        alone = Moments(4).update(x)
        assert one.count == alone.count
        torch.testing.assert_close(one.mean, alone.mean)
        torch.testing.assert_close(one.covariance, alone.covariance)


FAR = [0.0, 3e4, 1e6, 1e8]


@pytest.mark.parametrize("far", FAR)
def test_moments_far_from_zero_are_those_of_centred_features(far: float) -> None:
    """x - far is exact, so the centred features are known to every digit; batches drift, as sorted classes do."""
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 6, generator=gen, dtype=torch.float64) + torch.linspace(-1, 1, 1000).double()[:, None] + far
    centred = x - far
    cov = np.cov(centred.numpy(), rowvar=False)
    parts = list(x.split([1, 99, 400, 500]))
    one, stacked = Moments(6), StackedMoments()
    for part in parts:
        one.update(part)
        stacked.update(part[None])
    merged = Moments(6).merge(Moments(6).update(x[:7])).merge(Moments(6).update(x[7:]))
    for moments in (one, merged, *stacked.each()):
        np.testing.assert_allclose(moments.covariance, cov, rtol=1e-8, atol=1e-8 * np.abs(cov).max())
        zero = Moments(6).update(torch.full((3, 6), far, dtype=torch.float64))
        np.testing.assert_allclose(moments.mean_less(zero), centred.mean(0), rtol=1e-8, atol=1e-10)


def test_a_first_batch_far_from_the_rest_costs_nothing() -> None:
    """The shift's distance from the mean is itself part of the variance."""
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 4, generator=gen, dtype=torch.float64)
    x[:2] += 1e6
    moments = Moments(4).update(x[:2]).update(x[2:])
    np.testing.assert_allclose(moments.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-8)


def test_nothing_adds_nothing() -> None:
    moments = Moments(6).update(torch.zeros(0, 6)).update(features()).update(torch.zeros(0, 6))
    assert torch.equal(moments.covariance, Moments(6).update(features()).covariance)
