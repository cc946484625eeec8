import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from analysis.fronts import SMALL, fronts, fronts_of_many


def peeled(costs: Sequence[Sequence[float]]) -> list[int]:
    """Peel off the points that no other remaining point dominates."""
    left, front = set(range(len(costs))), [0] * len(costs)

    def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    number = 0
    while left:
        number += 1
        best = {i for i in left if not any(dominates(costs[j], costs[i]) for j in left)}
        for i in best:
            front[i] = number
        left -= best
    return front


def brute_force(fid: Sequence[float], clip: Sequence[float]) -> list[int]:
    return peeled([(f, -c) for f, c in zip(fid, clip, strict=True)])


@pytest.mark.parametrize("objectives", [2, 3, 4])
@pytest.mark.parametrize("levels", [2, 4, 10, 1000])
def test_fronts_of_random_clouds_are_those_of_brute_force(levels: int, objectives: int) -> None:
    """Few levels make many ties, in one coordinate and in all."""
    rng = random.Random(levels)
    for _ in range(60):
        costs = [[rng.randrange(levels) * 1.5 for _ in range(objectives)] for _ in range(rng.randrange(1, 40))]
        assert fronts(costs) == peeled(costs)


@pytest.mark.parametrize("objectives", [2, 3, 4])
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_many_clouds_at_once_are_sorted_as_each_alone(levels: int, objectives: int) -> None:
    rng = np.random.default_rng(levels)
    for points in (1, 2, 17, SMALL + 1):
        costs = rng.integers(levels, size=(20, points, objectives)) / 7
        assert fronts_of_many(costs).tolist() == [fronts(cloud) for cloud in costs]


def test_an_objective_that_is_the_same_for_all_changes_nothing() -> None:
    costs = np.random.default_rng(0).integers(5, size=(30, 2)) / 7
    constant = np.column_stack([costs, np.full(30, 0.3)])
    assert fronts(constant) == fronts(costs)
    assert fronts_of_many(constant[None]).tolist() == fronts_of_many(costs[None]).tolist()


# Paper, Table 2: 25 steps, CLIP and FID on ImageNet, then on CC12M.
TABLE_2 = {
    "rf": (0.247, 49.70, 0.217, 94.90),
    "edm(-1.20,1.20)": (0.236, 63.12, 0.200, 116.60),
    "eps/linear": (0.245, 48.42, 0.222, 90.34),
    "v/cos": (0.244, 50.74, 0.209, 97.87),
    "v/linear": (0.246, 51.68, 0.217, 100.76),
    "rf/lognorm(0.50,0.60)": (0.256, 80.41, 0.233, 120.84),
    "rf/mode(1.75)": (0.253, 44.39, 0.218, 94.06),
    "rf/lognorm(1.00,0.60)": (0.254, 114.26, 0.234, 147.69),
    "rf/lognorm(-0.50,1.00)": (0.248, 45.64, 0.219, 89.70),
    "rf/lognorm(0.00,1.00)": (0.250, 45.78, 0.224, 89.91),
}


@pytest.mark.parametrize("column", [0, 2], ids=["imagenet", "cc12m"])
def test_fronts_of_the_papers_table_2_are_those_of_brute_force(column: int) -> None:
    clip, fid = ([scores[column + i] for scores in TABLE_2.values()] for i in (0, 1))
    assert fronts(np.column_stack([fid, np.negative(clip)])) == brute_force(fid, clip)


def test_fronts_of_table_2_on_imagenet_read_off_by_hand() -> None:
    clip, fid = ([scores[i] for scores in TABLE_2.values()] for i in (0, 1))
    found = dict(zip(TABLE_2, fronts(np.column_stack([fid, np.negative(clip)])), strict=True))
    assert {name for name, front in found.items() if front == 1} == {"rf/lognorm(0.50,0.60)", "rf/mode(1.75)"}
    assert found["edm(-1.20,1.20)"] == max(found.values())


def test_better_on_one_axis_at_a_tie_on_the_other_dominates() -> None:
    assert fronts([(1, -0.2), (1, -0.1), (2, -0.2)]) == [1, 2, 2]
    assert fronts([(5, -0.2)] * 3) == [1, 1, 1]
    assert fronts([]) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_only_finite_points_are_sorted(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        fronts([(1.0, 0.1), (bad, 0.2)])
