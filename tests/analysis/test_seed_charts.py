import random
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import NAMES, write_run

from analysis.collect import collect, results
from analysis.families import colours
from analysis.seed_charts import Canvas, attainment, intervals
from analysis.study import studies

SETTINGS = [(50, 1.0), (50, 5.0), (5, 5.0)]


def canvas(folder: Path, seeds: int) -> Canvas:
    for name in NAMES[:3]:
        for seed in range(seeds):
            write_run(folder, name, seed=seed, weights=("ema", "raw"), settings=SETTINGS)
    runs = collect([folder]).runs
    (study,) = studies(runs, results(runs))
    return Canvas(study, colours(NAMES))


def rows(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return spec["datasets"]["rows"]


FID, CLIP = "m0", "m1"  # as the charts call the metrics


def attained(stairs: list[dict[str, Any]], fid: float, clip: float) -> bool:
    """Whether a point lies on or below the drawn bound."""
    return any(corner[FID] <= fid and corner[CLIP] >= clip for corner in stairs)


def test_surfaces_bound_what_so_many_seeds_attain(tmp_path: Path) -> None:
    drawn = canvas(tmp_path, seeds=3)
    found = attainment(drawn)
    assert found is not None
    spec, labels = found
    assert labels[0] == "all variants, half of the seeds"
    assert set(labels[1:]) == set(NAMES[:3])
    rng = random.Random(0)
    for at, variant in enumerate(labels[1:], 1):
        own = [r for r in drawn.study.results.rows if r.variant == variant and r.record["weights"] == "ema"]
        fids, clips = ([r.scores[name] for r in own] for name in ("fid", "clip"))
        for by, at_least in (("one seed", 1), ("half of the seeds", 2), ("every seed", 3)):
            stairs = [row for row in rows(spec) if row["at"] == at and row["by"] == by]
            end = max(row[FID] for row in stairs)
            floor = min(row[CLIP] for row in stairs)
            for _ in range(200):
                fid, clip = rng.uniform(min(fids), end), rng.uniform(floor, max(clips))
                seeds = {r.seed for r in own if r.scores["fid"] <= fid and r.scores["clip"] >= clip}
                assert attained(stairs, fid, clip) == (len(seeds) >= at_least)


def test_intervals_stand_around_their_ranks_in_order(tmp_path: Path) -> None:
    spec = intervals(canvas(tmp_path, seeds=2))
    assert spec is not None
    means = [row["mean"] for row in rows(spec)]
    assert means == sorted(means)
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows(spec))


@pytest.mark.parametrize("chart", [intervals, attainment])
def test_one_seed_has_neither(tmp_path: Path, chart: Any) -> None:
    assert chart(canvas(tmp_path, seeds=1)) is None
