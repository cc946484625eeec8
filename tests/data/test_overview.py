"""What people are told of their data before training, once."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from flowzoo.data import overview
from flowzoo.data.folder import Folder
from flowzoo.data.shapes import Shapes


def printed(*sources: object) -> str:
    stream = io.StringIO()
    overview.tell(*sources, Console(file=stream, width=200))  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(60):
        path = tmp_path / "images" / ("cat", "big_dog", "[red]")[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 10 + i % 2, 3), i, np.uint8)).save(path)
    (tmp_path / "images/cat/phone.heic").write_bytes(b"")
    return tmp_path / "images"


def test_a_folder_says_what_it_holds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "_told", set())
    train, val = (Folder(split, str(root), val_fraction=0.3, image_size=8, name="pets") for split in ("train", "val"))
    told = printed(train, val)
    for words in (
        "data: pets",
        f"{len(train)} to train on, {len(val)} held out, 8 x 8 pixels",
        "a photo of a cat", "a photo of a big dog", "a photo of a [red]",
        "3: ",
        "20 x 10 to 20 x 11",
        "no images: .heic (1): cat/phone.heic",
    ):  # fmt: skip
        assert words in told
    assert printed(train, val) == ""


def test_sizes_are_told_height_first(root: Path) -> None:
    train, val = (Folder(split, str(root), val_fraction=0.3, image_size=[24, 8]) for split in ("train", "val"))
    told = dict(overview.overview(train, val))
    assert told["images"].endswith("24 x 8 pixels")
    assert "smaller than 24 x 8, which are enlarged" in told["sizes"]


def test_another_place_for_the_held_out_images_is_told_too(root: Path) -> None:
    lines = overview.overview(*(Folder(split, str(root), str(root)) for split in ("train", "val")))
    assert "held out: classes" in dict(lines)


def test_any_source_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "_told", set())
    told = printed(Shapes("train", 16, size=50), Shapes("val", 16, size=20))
    assert "50 to train on, 20 held out, 16 x 16 pixels" in told
    assert told.count("\n") == 6  # two borders, images, three captions
