import math
import random

import numpy as np
import pytest

from analysis.fronts import fronts, fronts_of_many


def brute_force(fid: list[float], clip: list[float]) -> list[int]:
    """Peel off the points that no other remaining point dominates."""
    left, front = set(range(len(fid))), [0] * len(fid)
    number = 0
    while left:
        number += 1
        best = {
            i
            for i in left
            if not any(fid[j] <= fid[i] and clip[j] >= clip[i] and (fid[j] < fid[i] or clip[j] > clip[i]) for j in left)
        }
        for i in best:
            front[i] = number
        left -= best
    return front


@pytest.mark.parametrize("levels", [2, 4, 10, 1000])
def test_fronts_of_random_clouds_are_those_of_brute_force(levels: int) -> None:
    """Few levels make many ties, in one coordinate and in both."""
    rng = random.Random(levels)
    for _ in range(150):
        n = rng.randrange(1, 40)
        fid = [rng.randrange(levels) * 1.5 for _ in range(n)]
        clip = [rng.randrange(levels) * 0.01 for _ in range(n)]
        assert fronts(fid, clip) == brute_force(fid, clip)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_many_clouds_at_once_are_sorted_as_each_alone(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for points in (1, 2, 17):
        fid, clip = rng.integers(levels, size=(2, 40, points)) / 7
        assert fronts_of_many(fid, clip).tolist() == [fronts(f, c) for f, c in zip(fid, clip, strict=True)]


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
    assert fronts(fid, clip) == brute_force(fid, clip)


def test_fronts_of_table_2_on_imagenet_read_off_by_hand() -> None:
    clip, fid = ([scores[i] for scores in TABLE_2.values()] for i in (0, 1))
    found = dict(zip(TABLE_2, fronts(fid, clip), strict=True))
    assert {name for name, front in found.items() if front == 1} == {"rf/lognorm(0.50,0.60)", "rf/mode(1.75)"}
    assert found["edm(-1.20,1.20)"] == max(found.values())


def test_better_on_one_axis_at_a_tie_on_the_other_dominates() -> None:
    assert fronts([1, 1, 2], [0.2, 0.1, 0.2]) == [1, 2, 2]
    assert fronts([5, 5, 5], [0.2, 0.2, 0.2]) == [1, 1, 1]
    assert fronts([], []) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_only_finite_pairs_are_sorted(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        fronts([1.0, bad], [0.1, 0.2])
    with pytest.raises(ValueError, match="pair up"):
        fronts([1.0], [0.1, 0.2])
