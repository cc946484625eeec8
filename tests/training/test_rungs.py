"""Who goes on at a rung: decided from the folders of a sweep alone, once."""

import json
import math
import random
from pathlib import Path

import pytest

from flowzoo.runs.store import Run
from flowzoo.training.rungs import FILE, Rungs, decide, record, verdict


def run_in(sweep: Path, name: str) -> Run:
    (sweep / name).mkdir(parents=True)
    return Run(sweep / name)


@pytest.mark.parametrize("eta", [2, 3, 5])
def test_the_best_of_those_that_came_so_far_go_on(tmp_path: Path, eta: int) -> None:
    draw = random.Random(eta)
    came: list[float] = []
    for k in range(20):
        run, fid = run_in(tmp_path, str(k)), draw.choice([draw.random(), math.nan, 0.5])
        record(run, 1000, "a", fid)
        assert verdict(run, 1000) is None
        came.append(math.inf if math.isnan(fid) else fid)
        place, among = decide(run, 1000, eta)
        better = sum(other < came[-1] for other in came)
        assert (place, among) == (better + 1, k + 1)
        assert verdict(run, 1000) is (math.isfinite(came[-1]) and better < max(1, (k + 1) // eta))


def test_other_groups_rungs_and_sweeps_do_not_count(tmp_path: Path) -> None:
    for k, (sweep, images, group) in enumerate([("s", 1000, "b"), ("s", 500, "a"), ("other", 1000, "a")]):
        record(run_in(tmp_path / sweep, str(k)), images, group, 1.0)
    run = run_in(tmp_path / "s", "own")
    record(run, 1000, "a", 2.0)
    assert decide(run, 1000, eta=2) == (1, 1)
    assert verdict(run, 500) is None


def test_a_verdict_is_final(tmp_path: Path) -> None:
    first, second = (run_in(tmp_path, name) for name in ("first", "second"))
    record(first, 1000, "a", 2.0)
    decide(first, 1000, eta=2)
    record(second, 1000, "a", 1.0)
    decide(second, 1000, eta=2)
    assert (verdict(first, 1000), verdict(second, 1000)) == (True, True)
    kept = json.loads((first.path / FILE).read_text())["1000"]
    assert kept == {"group": "a", "fid": 2.0, "kept": True, "place": 1, "among": 1}


def test_steps_of_the_rungs() -> None:
    rungs = Rungs(images=[48, 9, 16, 24], eta=2, samples=70, steps=2, guidance=1.0)
    assert rungs.before(steps=6, batch_size=8) == {2: 16, 3: 24}  # 9 images are seen after 2 steps as well
