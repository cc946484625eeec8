"""`python -m flowzoo.advise`: numbers and a picture, the law that a run then measures, and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flowzoo import advise
from flowzoo.build import jobs_of
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.single import composed

SMALL = ["data.source.size=300", "data.source.image_size=16", "data.workers=0", "accelerator=cpu"]


def told(*words: str) -> dict[str, Any]:
    return advise.run(composed("advise", [*SMALL, *words]))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_it_prints_and_draws(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told()
    (out,) = (here / "runs" / "advise").glob("shapes_pca_f4_c16_*.png")
    assert Image.open(out).width > 1000
    assert json.loads(out.with_suffix(".json").read_text()) == json.loads(json.dumps(found))
    assert (found["images"], found["dimensions"]) == (300, 4 * 4 * 16)
    assert found["mean"]["low"] < found["mean"]["value"] < found["mean"]["high"]
    assert len(found["nearest"]) == 61
    words = " ".join(capsys.readouterr().out.split())
    assert "The rule is a hypothesis and not confirmed." in words
    assert f"sampler=lognorm sampler.m={found['mean']['value']:.2f}" in words
    assert found["nearest"][0]["name"] in words
    assert "pilot, 1 seed" in words


def test_the_same_images_say_the_same(here: Path) -> None:
    one, other = told("out=one.png"), told("out=other.png")
    assert one == other


def test_a_run_measures_the_law_that_was_told() -> None:
    words = [*SMALL[:-1], "trainer.accelerator=cpu", "sampler=spectrum", "autoencoder=pixels"]
    with config_loader() as loader:
        (job,) = jobs_of(compose_jobs(loader, "train", words, multirun=False))
    law = told("autoencoder=pixels")["law"]
    assert job.about_data["spectrum"]["masses"] == pytest.approx(law["masses"], rel=1e-4)
    assert job.about_data["spectrum"]["centres"] == pytest.approx(law["centres"], rel=1e-4)


def test_a_gain_moves_the_law_and_its_neighbours() -> None:
    plain, louder = (
        told("autoencoder=pixels", "out=a.png"),
        told("autoencoder=pixels", "autoencoder.gain=0.25", "out=b.png"),
    )
    assert plain["mean"]["value"] - louder["mean"]["value"] == pytest.approx(1.386, abs=1e-3)
    assert plain["deviation"]["value"] == pytest.approx(louder["deviation"]["value"], abs=1e-2)
    assert plain["nearest"][0]["distance"]["value"] > louder["nearest"][0]["distance"]["value"]


def test_a_committed_prediction_comes_out_again() -> None:
    file = Path(__file__).parents[1] / "docs" / "results" / "sd3-61" / "predictions.csv"
    if not file.exists():
        pytest.skip("the predictions of docs/results/ are not in this checkout")
    words = ["data.source.image_size=16", "autoencoder=pca"]
    (row,) = (r for r in csv.DictReader(file.open()) if (r["data"], r["words"]) == ("shapes", " ".join(words)))
    found = advise.run(composed("advise", [*words, "accelerator=cpu"]))
    assert found["fingerprint"].startswith(row["fingerprint"])
    for key in ("mean", "deviation"):
        assert found[key]["value"] == pytest.approx(float(row[key]), abs=2e-3)
        assert found[key]["low"] == pytest.approx(float(row[f"{key}_low"]), abs=2e-3)
    assert found["nearest"][0]["name"] == row["nearest_61"]


BAD = [
    ("autoencoder=diffusers", "autoencoder.weights is missing"),
    ("data.source.image_size=18", "autoencoder.factor=4: allowed is a divisor of 18 x 18"),
    ("images=1", "images=1: allowed is an integer of at least 2"),
    ("out=folder", "out=folder: this is a folder"),
    ("out=x.jpg", "out=x.jpg: allowed is the name of a PNG file"),
    ("sampler=spectrum", "sampler"),
    ("+wrong=1", "wrong=1: nothing reads wrong"),
]


@pytest.mark.parametrize(("word", "named"), BAD)
def test_what_is_refused_is_one_line(here: Path, refused: Callable[..., str], word: str, named: str) -> None:
    assert named in refused(advise.main, *SMALL, word)
    assert [path.name for path in here.iterdir()] == ["folder"]
