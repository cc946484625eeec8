"""COCO's captions beside a folder or a zip of images; what is no such json gets one line."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import tars

from flowzoo import train
from flowzoo.data.coco import Coco


def annotated(path: Path, first: int, n: int = 8) -> Path:
    """Images and their json: five captions each, the last image without one, one caption without its image."""
    (path / "images").mkdir(parents=True)
    for i in range(first, first + n):
        (path / "images" / f"COCO_{i:012}.jpg").write_bytes(tars.picture(i, "JPEG"))
    images = [{"id": i, "file_name": f"COCO_{i:012}.jpg"} for i in range(first, first + n + 1)]
    told = [{"image_id": i, "caption": f" caption {k}\nof {i}"} for i in range(first, first + n - 1) for k in range(5)]
    told += [{"image_id": first + n, "caption": "gone"}]
    (path / "captions.json").write_text(json.dumps({"images": images, "annotations": told, "info": {}}))
    return path


def test_each_image_has_its_captions(tmp_path: Path) -> None:
    here, held_out = annotated(tmp_path / "train", 0), annotated(tmp_path / "val", 50)
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        for image in (held_out / "images").iterdir():
            archive.write(image, f"val2014/{image.name}")
    given = (
        str(here / "images"),
        str(here / "captions.json"),
        str(tmp_path / "val.zip"),
        str(held_out / "captions.json"),
    )
    sources = {split: Coco(split, *given, image_size=8) for split in ("train", "val")}
    for first, source in zip((0, 50), sources.values(), strict=True):
        assert [source.prompt(i) for i in range(len(source))] == [f"caption 0 of {first + i}" for i in range(7)]
        assert source.captions(3) == tuple(f"caption {k} of {first + 3}" for k in range(5))
        assert source.images(range(7)).shape == (7, 3, 8, 8)
        assert source.passed.names["captions whose image is not there"] == [f"COCO_{first + 8:012}.jpg"]
        assert len(source.passed.names["images without a caption"]) == 1
    told = dict(sources["train"].about())
    assert told["captions from"] == str(here / "captions.json")


def test_what_is_missing_or_no_json_of_captions_gets_one_line(tmp_path: Path, refused: Callable[..., str]) -> None:
    here = annotated(tmp_path, 0)
    words = ["data=coco", f"data.source.path={here / 'images'}", "experiment=demo", "text=words"]
    assert "data.source.annotations is missing" in refused(train.main, *words)
    there = f"data.source.annotations={here / 'none.json'}"
    assert "are in annotations_trainval2014.zip" in refused(train.main, *words, there)
    (here / "none.json").write_text('{"images": [], "annotations": []}')
    assert "no caption is of an image" in refused(train.main, *words, there)
    for content in ("[]", "{", '{"images": [{"id": 1}], "annotations": []}'):
        (here / "none.json").write_text(content)
        assert "no json of captions" in refused(train.main, *words, there)
    good = f"data.source.annotations={here / 'captions.json'}"
    assert "val_annotations is missing" in refused(train.main, *words, good, f"data.source.val_path={here / 'images'}")
