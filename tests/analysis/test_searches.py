"""Searches in the report: the front against brute force, a hypervolume that only grows, no ranking of its runs."""

import csv
import json
import random
from pathlib import Path

import pytest
from test_fronts import peeled

from analysis.report import main
from analysis.searches import Search, searches
from flowzoo.runs.layout import TRIAL_END, TRIAL_START

FIXED = [*TRIAL_START, "fid", "clip", *TRIAL_END]


def trials(folder: Path, n: int = 30, seed: int = 0) -> Path:
    """A table of n made-up trials, some without scores."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    with open(folder / "trials.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FIXED, "sampler.m", "optimizer.lr"])
        for k in range(n):
            state = draw.choice(["done", "done", "done", "diverged", "stopped", "queued"])
            scores = [draw.randrange(10, 20), draw.randrange(1, 9) / 10] if state == "done" else ["", ""]
            own = ["", ""] if state == "queued" else [draw.random(), 10 ** draw.uniform(-5, -2)]
            writer.writerow([k, state, *scores, f"rf-s0-{k:08x}", "", "", *own])
    return folder


def test_the_front_and_its_volume(tmp_path: Path) -> None:
    search = Search.read(trials(tmp_path / "s") / "trials.csv")
    points = {t.number: t.scores for t in search.scored if t.scores}
    front = {
        k
        for k, (fid, clip) in points.items()
        if not any(f <= fid and c >= clip and (f, c) != (fid, clip) for f, c in points.values())
    }
    assert {t.number for t in search.front} == front
    assert list(search.parameters) == ["sampler.m", "optimizer.lr"]
    volumes = [volume for _, volume in search.history()]
    assert volumes == sorted(volumes)
    assert volumes[-1] == 1.0
    worst_fid, worst_clip = search.reference
    # what no point reaches adds nothing; cells of one unit by a tenth, counted
    cells = [
        any(fid <= x and clip >= y - 1e-9 for fid, clip in points.values())
        for x in range(10, int(worst_fid))
        for y in [0.1 * i for i in range(1, 10) if 0.1 * i > worst_clip + 1e-9]
    ]
    half = len(volumes) // 2
    part = dict(list(points.items())[:half])
    reached = [
        any(fid <= x and clip >= y - 1e-9 for fid, clip in part.values())
        for x in range(10, int(worst_fid))
        for y in [0.1 * i for i in range(1, 10) if 0.1 * i > worst_clip + 1e-9]
    ]
    assert volumes[half - 1] == pytest.approx(sum(reached) / sum(cells))


def test_in_the_report(tmp_path: Path) -> None:
    folder = trials(tmp_path / "runs" / "lognorm")
    for k in range(2):  # two runs of one variant, which no ranking could tell apart
        (folder / f"rf-s0-{k:08x}").mkdir()
        (folder / f"rf-s0-{k:08x}" / "results.csv").write_text("variant,fid,clip\nrf,1,1\n")
    assert main([str(folder), "-o", str(tmp_path / "report")]) == 0
    page, text = ((tmp_path / "report" / f"report.{kind}").read_text() for kind in ("html", "md"))
    for place in ("search0-front-1", "search0-history", "search0-m0-p0", "search0-m1-p1"):
        assert f'data-spec="{place}"' in page
    assert "lognorm, a search of sampler.m, optimizer.lr" in text
    assert "| Trial | sampler.m | optimizer.lr | FID | CLIP score | Run |" in text
    assert not (tmp_path / "report" / "ranking.csv").exists()


def test_none_scored_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s").mkdir()
    path = tmp_path / "s" / "trials.csv"
    path.write_text(",".join([*FIXED, "sampler.m"]) + "\n0,running,,,,,,0.5\n")
    ((search,), _) = searches([tmp_path / "s"])
    assert (search.front, search.history(), search.counts()) == ([], [], "1 running")
    assert main([str(tmp_path / "s"), "-o", str(tmp_path / "report")]) == 0
    path.write_text("number,fid\n0,x\n")
    assert main([str(tmp_path / "s"), "-o", str(tmp_path / "report")]) == 2
    assert "is no table of trials" in capsys.readouterr().err


def three(folder: Path, seed: int = 0) -> Path:
    """Trials with a third score, and the study's file that says which way they are better."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    rows = [
        [k, "done", draw.randrange(5), draw.randrange(5), draw.randrange(5), "", "", "", 0.1 * k] for k in range(25)
    ]
    with open(folder / "trials.csv", "w", newline="") as file:
        csv.writer(file).writerows([[*TRIAL_START, "fid", "clip", "geneval", *TRIAL_END, "sampler.m"], *rows])
    objectives = {"fid": "min", "clip": "max", "geneval": "max"}
    (folder / "study.json").write_text(json.dumps({"name": "s", "objectives": objectives}))
    return folder


def test_three_objectives(tmp_path: Path) -> None:
    folder = three(tmp_path / "s")
    search = Search.read(folder / "trials.csv")
    costs = [[o.sign * score for o, score in zip(search.objectives, t.scores, strict=True)] for t in search.scored]
    assert {t.number for t in search.front} == {k for k, front in enumerate(peeled(costs)) if front == 1}
    volumes = [volume for _, volume in search.history()]
    assert volumes == sorted(volumes)
    assert search.reference == (max(c[0] for c in costs), -max(c[1] for c in costs), -max(c[2] for c in costs))
    assert main([str(folder), "-o", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    for place in ("front-1", "front-2", "history", "m2-p0"):
        assert f'data-spec="search0-{place}"' in page
    (folder / "study.json").unlink()
    with pytest.raises(ValueError, match="does not say which way geneval is better"):
        Search.read(folder / "trials.csv")
