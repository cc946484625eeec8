import numpy as np
import pytest

from analysis.fronts import fronts
from analysis.resampling import Floats, average_fronts, resampled

NONE_LOST = np.zeros((8, 4), dtype=bool)


def drawn(rng: np.random.Generator, seeds: int, noise: float = 0.02, equal: bool = False) -> tuple[Floats, Floats]:
    """True costs [8, 4, 2], FID and CLIP score negated, and noisy ones [8, seeds, 4, 2].

    Much is the seed's, and a run errs alike in all settings.
    """
    level = np.full(8, 30.0) if equal else np.sort(rng.uniform(20, 40, 8))
    fid = np.tile(level[:, None], (1, 4)) * (1 if equal else 1 + rng.normal(0, 0.05, (8, 4)))
    clip = 0.3 - fid / 1000 + (0 if equal else rng.normal(0, 0.003, (8, 4)))
    run = rng.normal(0, 0.05, (1, seeds, 1)) + noise * rng.normal(size=(8, seeds, 1))
    rest = noise / 2 * rng.normal(size=(2, 8, seeds, 4))
    noisy = (fid[:, None] * (1 + run + rest[0]), 0.03 * (run + rest[1]) - clip[:, None])
    return np.stack([fid, -clip], -1), np.stack(noisy, -1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_hold_the_rank_without_noise_as_often_as_they_say(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    held, wrong, told = [], 0, 0
    for _ in range(40):
        costs, noisy = drawn(rng, seeds)
        true = average_fronts(costs[None], NONE_LOST)[0]
        noise = resampled(noisy)
        assert noise is not None
        held.append(((noise.low <= true) & (true <= noise.high)).mean())
        wrong += int((noise.before & (true[:, None] > true)).sum())
        told += int(noise.before.sum())
    assert np.mean(held) > 0.9
    assert wrong <= 0.01 * told
    assert told > 40 * 28 / 2  # most of the 28 pairs are told apart


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_equal_variants_seldom_have_an_order(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    found = [resampled(drawn(rng, seeds, equal=True)[1]) for _ in range(60)]
    assert np.mean([noise.before.any() for noise in found if noise]) < 0.1


def test_averages_of_fronts_are_those_of_each_setting() -> None:
    costs, _ = drawn(np.random.default_rng(0), 1)
    lost = NONE_LOST.copy()
    lost[2, 1] = lost[5, 1] = True
    got = average_fronts(costs[None], lost)[0]
    expected = np.zeros(8)
    for k in range(4):
        here = np.flatnonzero(~lost[:, k])
        front = fronts(costs[here, k])
        expected[here] += front
        expected[lost[:, k]] += max(front) + 1
    assert got == pytest.approx(expected / 4)
    # where nobody is left, nobody is first
    assert average_fronts(costs[None, :1, :1], np.array([[True]])).item() == 2


def test_nothing_is_said_where_nothing_tells_a_seed_from_the_rest() -> None:
    _, costs = drawn(np.random.default_rng(0), 2)
    assert resampled(costs[:1]) is None
    assert resampled(costs[:, :1]) is None
    costs[1:, 0, 0, 0] = np.nan
    assert resampled(costs) is None


def test_a_third_objective_that_is_the_same_for_all_changes_nothing() -> None:
    _, costs = drawn(np.random.default_rng(1), 3)
    constant = np.concatenate([costs, np.full((*costs.shape[:-1], 1), 0.3)], -1)
    one, other = resampled(costs), resampled(constant)
    assert one is not None
    assert other is not None
    for field in vars(one):
        assert np.array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("own", [1, 2])
def test_variants_of_few_seeds_are_as_sure_as_those_of_more_seeds_tell(own: int) -> None:
    """Half of the variants have three seeds."""
    rng = np.random.default_rng(own)
    held, wrong, told = [], 0, 0
    for _ in range(40):
        costs, noisy = drawn(rng, 3)
        true = average_fronts(costs[None], NONE_LOST)[0]
        noisy[::2, own:] = np.nan
        noise = resampled(noisy[:, :own], noisy)
        assert noise is not None
        held.append(((noise.low <= true) & (true <= noise.high)).mean())
        wrong += int((noise.before & (true[:, None] > true)).sum())
        told += int(noise.before.sum())
    assert np.mean(held) > 0.9
    assert wrong <= 0.01 * told


def test_more_that_tells_nothing_more_changes_nothing() -> None:
    _, costs = drawn(np.random.default_rng(2), 3)
    one, other = resampled(costs), resampled(costs, costs)
    assert one is not None
    assert other is not None
    for field in vars(one):
        assert np.array_equal(getattr(one, field), getattr(other, field))
    assert resampled(costs[:, :1], costs[:, :1]) is None
