"""`python -m flowzoo.reconstruct`: numbers of an autoencoder, a picture, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flowzoo import reconstruct
from flowzoo.runs.single import composed

SMALL = ["data.source.size=300", "data.source.image_size=16", "data.workers=0", "images=80", "accelerator=cpu"]


def measured(*words: str) -> dict[str, Any]:
    return reconstruct.run(composed("reconstruct", [*SMALL, *words]))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_pixels_come_back_as_they_were(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured("autoencoder=pixels")
    assert found["rfid"] == pytest.approx(0, abs=1e-6)
    assert found["ssim"] == pytest.approx(1)
    assert found["psnr"] is None  # infinite
    assert found["images"] == 80
    told = capsys.readouterr().out
    assert "80 images are few for FID in 64 dimensions" in told
    (out,) = (here / "runs" / "reconstruct").glob("shapes_pixels_f1_c3_*.png")
    assert Image.open(out).size == (8 * 18 + 2, 2 * 18 + 2)
    assert json.loads(out.with_suffix(".json").read_text()) == found


def test_more_components_give_more_back(here: Path) -> None:
    few, more = (measured(f"autoencoder.channels={n}", f"out=own/{n}.png") for n in (3, 12))
    assert (few["channels"], few["factor"]) == (3, 4)
    assert more["psnr"] > few["psnr"] + 3
    assert more["ssim"] > few["ssim"]
    assert more["rfid"] < few["rfid"]
    assert few["autoencoder"]["fingerprint"] != more["autoencoder"]["fingerprint"]
    assert sorted(path.name for path in (here / "own").iterdir()) == ["12.json", "12.png", "3.json", "3.png"]


def test_too_few_images_have_no_rfid(capsys: pytest.CaptureFixture[str]) -> None:
    assert measured("images=20")["rfid"] is None
    assert "20 images in 64 dimensions have a singular covariance" in capsys.readouterr().out


BAD = [
    ("autoencoder=diffusers", "autoencoder.weights is missing"),
    ("autoencoder.factor=3", "factor=3"),
    ("data.source.image_size=18", "autoencoder.factor=4: allowed is a divisor of 18 x 18"),
    ("+autoencoder.wrong=1", "autoencoder.wrong: "),
    ("images=1", "images=1: allowed is an integer of at least 2"),
    ("out=folder", "out=folder: this is a folder"),
    ("out=x.jpg", "out=x.jpg: allowed is the name of a PNG file"),
    ("perceptual=clip", "allowed here is lpips"),
    ("extractor=clip_file", "extractor.weights is missing"),
    ("+wrong=1", "wrong=1: nothing reads wrong"),
]


@pytest.mark.parametrize(("word", "named"), BAD)
def test_what_is_refused_is_one_line(here: Path, refused: Callable[..., str], word: str, named: str) -> None:
    assert named in refused(reconstruct.main, *SMALL, word)
    assert [path.name for path in here.iterdir()] == ["folder"]
