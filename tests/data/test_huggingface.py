"""Tables of the package datasets, from parquet and from folders of save_to_disk, made here; refusals in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import tars

from flowzoo import train
from flowzoo.data.decoding import decode
from flowzoo.data.huggingface import HuggingFace

datasets = pytest.importorskip("datasets")


def table(n: int = 30, first: int = 0, **columns: Any) -> Any:
    images = [{"bytes": tars.picture(i), "path": None} for i in range(first, first + n)]
    texts = {"text": [f"picture {i}" for i in range(first, first + n)]}
    return datasets.Dataset.from_dict({"image": images, **(columns or texts)}).cast_column("image", datasets.Image())


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parquet")
    for k in range(2):
        table(first=30 * k).to_parquet(path / f"train-0000{k}-of-00002.parquet")
    table(10, 100).to_parquet(path / "validation-00000-of-00001.parquet")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)


def test_parquet_and_saved_tables_are_the_same(parquet: Path, tmp_path: Path) -> None:
    datasets.DatasetDict({"train": table(60), "validation": table(10, 100)}).save_to_disk(tmp_path / "saved")
    for split, n, first in (("train", 60, 0), ("val", 10, 100)):
        one, other = (
            HuggingFace(split, str(path), val_split="validation", image_size=8)
            for path in (parquet, tmp_path / "saved")
        )
        assert len(one) == len(other) == n
        assert one.fingerprint == other.fingerprint
        expected = np.stack([decode(tars.picture(first + i), (8, 8)) for i in range(n)])
        np.testing.assert_array_equal(one.images(range(n)), expected)
        np.testing.assert_array_equal(other.images([n - 1, 0]), expected[[-1, 0]])
        assert [one.prompt(i) for i in range(n)] == [f"picture {first + i}" for i in range(n)]


def test_a_share_is_held_out(parquet: Path) -> None:
    both = [HuggingFace(split, str(parquet), val_fraction=0.3) for split in ("train", "val")]
    told = sorted(source.prompt(i) for source in both for i in range(len(source)))
    assert told == sorted(f"picture {i}" for i in range(60))
    assert min(map(len, both)) > 5


def test_captions_are_texts_lists_and_classes(tmp_path: Path) -> None:
    lists = table(3, several=[["one", "two"], ["three", "three"], []])
    lists.to_parquet(tmp_path / "lists.parquet")
    source = HuggingFace("train", str(tmp_path / "lists.parquet"), caption="several", val_split="train")
    assert [source.captions(i) for i in range(len(source))] == [("one", "two"), ("three",)]
    assert source.passed.names == {"images without a caption": ["row 2"]}
    classes = table(3, label=[1, 0, 1]).cast_column("label", datasets.ClassLabel(names=["cat", "fire_truck"]))
    classes.save_to_disk(tmp_path / "classes")
    source = HuggingFace("train", str(tmp_path / "classes"), val_split="train")
    assert [source.prompt(i) for i in range(3)] == [
        f"a photo of a {name}" for name in ("fire truck", "cat", "fire truck")
    ]


def test_broken_images_and_paths_outside_of_the_table(tmp_path: Path) -> None:
    images = [{"bytes": tars.picture(i), "path": None} for i in range(200)]
    images[5] = {"bytes": None, "path": "/etc/hostname"}
    images[6] = {"bytes": b"no image", "path": None}
    rows = {"image": images, "text": [f"picture {i}" for i in range(200)]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "broken.parquet")
    source = HuggingFace("train", str(tmp_path / "broken.parquet"), val_split="train", image_size=8)
    np.testing.assert_array_equal(source.images([5])[0], source.images([7])[0])
    assert (source.corrupt, source.captions(5), source.prompt(5)) == (2, ("picture 7",), "picture 5")


def test_mistakes_get_one_line(
    parquet: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # nobody is asked, wherever this runs
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    words = ["data=hf", "experiment=demo", "text=words"]
    there = f"data.source.path={parquet}"
    for wrong, told in {
        "val_split=test": "there is no split test; allowed: train, validation",
        "image=pixels": "no column pixels; allowed for image: image, text",
        "caption=words": "no column words; allowed for caption",
        "image=text": "is of kind Value",
    }.items():
        assert told in refused(train.main, *words, there, f"data.source.{wrong}")
    assert "OWNER/NAME where the hub is reached" in refused(train.main, *words, "data.source.path=owner/name")
    assert "nothing that datasets reads" in refused(train.main, *words, f"data.source.path={tmp_path}")
    (tmp_path / "script.py").write_text("raise SystemExit('code of others')")
    assert "nothing that datasets reads" in refused(train.main, *words, f"data.source.path={tmp_path}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'flowzoo[data]'" in refused(train.main, *words, there)
