import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from analysis.agreement import agreement, kendall, spearman


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_of_scipy(ties: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50, 9))
    if ties:
        x, y = x.round(), y.round()
    for own, theirs in ((spearman, spearmanr), (kendall, kendalltau)):
        expected = [theirs(a, b).statistic for a, b in zip(x, y, strict=True)]
        assert own(x, y) == pytest.approx(expected, nan_ok=True)


def test_intervals_hold_the_correlation_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(60):
        x = rng.normal(size=40)
        found = agreement(x, 0.6 * x + 0.8 * rng.normal(size=40))
        assert found is not None
        held.append(found.spearman.low <= 6 / np.pi * np.arcsin(0.3) <= found.spearman.high)
    assert 0.85 <= np.mean(held) <= 1


def test_equal_and_opposite_orders_agree_wholly() -> None:
    for sign in (1, -1):
        found = agreement(range(8), [sign * value**3 for value in range(8)])
        assert found is not None
        for value in (*found.spearman, *found.kendall):
            assert value == pytest.approx(sign)


def test_nothing_is_said_of_two_variants_and_of_ties_alone() -> None:
    assert agreement([1, 2], [1, 2]) is None
    assert agreement([1, 1, 1], [1, 2, 3]) is None
