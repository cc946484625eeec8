"""`python -m flowzoo.calibrate`: the numbers, the table, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flowzoo import calibrate
from flowzoo.metrics.ladders import LADDERS
from flowzoo.runs.single import composed

SMALL = ["data.source.size=140", "data.source.image_size=16", "data.workers=0", "images=70", "accelerator=cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_every_metric_climbs_every_ladder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = calibrate.run(composed("calibrate", [*SMALL, "metric=[fid_random,swd]"]))
    assert json.loads((here / "runs" / "calibrate" / "shapes.json").read_text()) == found
    assert found["metrics"] == dict.fromkeys(("fid_random", "swd", "swd_fine", "swd_coarse"), "min")
    assert len(found["rungs"]) == 1 + sum(len(strengths) for _, strengths in LADDERS.values())
    assert found["order"]["mixed"]["swd"] == 1
    assert found["order"]["prompts"] == dict.fromkeys(found["metrics"])
    told = capsys.readouterr().out
    assert "70 images are few" in told
    assert all(kind in told for kind in LADDERS)
    assert "swd_coarse" not in told  # the same as swd at 16 px, where there is one band
    assert "…" not in told


BAD = [
    ("images=1", "images=1: allowed is an integer of at least 2"),
    ("metric=[wrong]", "Could not load 'metric/wrong'. Available options in 'metric': attributes, clip, fid, "),
    ("output=folder", "output=folder: this is a folder"),
    ("+wrong=1", "wrong=1: nothing reads wrong"),
    ("extractor=clip_file", "extractor.weights is missing"),
]


@pytest.mark.parametrize(("word", "named"), BAD)
def test_what_is_refused_is_one_line(here: Path, refused: Callable[..., str], word: str, named: str) -> None:
    assert named in refused(calibrate.main, *SMALL, word)
    assert [path.name for path in here.iterdir()] == ["folder"]
