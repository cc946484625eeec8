"""Paired differences and their intervals."""

import numpy as np
import pytest
from scipy import stats

from analysis.differences import Pair, differences, half_widths
from analysis.objectives import Objective

FID, CLIP = Objective("fid", "min"), Objective("clip", "max")


def pairs_of(a: np.ndarray, b: np.ndarray, metric: str = "fid") -> list[Pair]:
    """Of scores [L, n, K]."""
    return [
        Pair(f"v{line}", str(seed), k, {metric: float(a[line, seed, k])}, {metric: float(b[line, seed, k])})
        for line, seed, k in np.ndindex(a.shape)
    ]


def test_one_line_is_the_paired_t_test_over_seeds():
    rng = np.random.default_rng(0)
    a = 20 + rng.random((1, 4, 3))
    b = a + rng.random((1, 4, 3))
    ((found,), left) = differences(pairs_of(a, b), [FID], "all")
    expected = stats.ttest_rel(b.mean(2)[0], a.mean(2)[0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert (found.n_seeds, found.n_settings, left) == (4, 3, [])
    assert found.difference == pytest.approx(float((b - a).mean()))


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int):
    """With what a seed does to all lines, and with none of it."""
    rng = np.random.default_rng(1)
    for common in (0.0, 1.0):
        held = []
        for _ in range(400):
            change = common * rng.normal(size=(1, seeds)) + rng.normal(size=(4, seeds))
            held += list(np.abs(change.mean(1)) <= half_widths(change, np.ones(4)))
        assert 0.92 < np.mean(held) < 0.99


def test_the_noise_is_in_proportion_to_the_level():
    change = np.random.default_rng(2).normal(size=(3, 3))
    level = np.array([1.0, 10.0, 100.0])
    np.testing.assert_allclose(half_widths(change * level[:, None], level), level * half_widths(change, np.ones(3)))


def test_one_seed_tells_of_no_line_but_of_all():
    rng = np.random.default_rng(3)
    a, b = 20 + rng.random((3, 1, 2)), 20 + rng.random((3, 1, 2))
    found, _ = differences(pairs_of(a, b), [FID], "all")
    assert [(one.low, one.high) for one in found[:3]] == [(None, None)] * 3
    expected = stats.t.interval(0.95, 2, (b - a).mean(), stats.sem((b - a).mean((1, 2))))
    assert (found[3].line, found[3].low, found[3].high) == ("all", *map(pytest.approx, expected))


def test_better_depends_on_the_metric_and_is_said_beyond_noise_only():
    a = np.full((1, 3, 1), 10.0)
    b = a + np.array([1.0, 1.1, 0.9])[None, :, None]
    for metric, said in ((FID, "worse"), (Objective("fid", "max"), "better"), (Objective("fid", ""), "")):
        ((found,), _) = differences(pairs_of(a, b), [metric], "all")
        assert found.verdict == said
    ((found,), _) = differences(pairs_of(a, a + np.array([1.0, -1.1, 0.9])[None, :, None]), [FID], "all")
    assert found.verdict == ""


def test_a_line_that_lacks_what_most_share_is_left_out():
    rng = np.random.default_rng(4)
    pairs = pairs_of(rng.random((3, 2, 2)), rng.random((3, 2, 2)))
    pairs = [pair for pair in pairs if (pair.line, pair.seed) != ("v1", "1")]
    pairs.append(Pair("v0", "7", 0, {"fid": 1.0}, {"fid": 2.0}))  # more than the others have
    found, left = differences(pairs, [FID, CLIP], "all")
    assert [one.line for one in found] == ["v0", "v2", "all"]
    assert left == ["v1"]
    assert {one.n_seeds for one in found} == {2}
