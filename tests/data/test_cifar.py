"""CIFAR-10 as torchvision reads it: on files in its format; without them one line that says what to put where."""

import hashlib
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from flowzoo import train
from flowzoo.data.cifar import Cifar10

NAMES = ["airplane", "automobile", "bird"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten images a batch, in three classes; torchvision is told their checksums."""
    folder = tmp_path / "there" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    draw = np.random.RandomState(0)

    def kept(name: str, content: Any) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch() -> dict[str, Any]:
        return {"data": draw.randint(0, 256, (10, 3072), np.uint8), "labels": [i % 3 for i in range(10)]}

    monkeypatch.setattr(CIFAR10, "train_list", [kept(name, batch()) for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [kept(name, batch()) for name, _ in CIFAR10.test_list])
    name, digest = kept("batches.meta", {"label_names": NAMES})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    return tmp_path / "there"


def test_it_has_pixels_and_captions(files: Path) -> None:
    source, held_out = (Cifar10(split, str(files)) for split in ("train", "val"))
    assert (len(source), len(held_out), source.size, source.channels) == (50, 10, (32, 32), 3)
    batch = pickle.loads((files / CIFAR10.base_folder / "data_batch_1").read_bytes())
    np.testing.assert_array_equal(source.images([3, 1]), batch["data"].reshape(-1, 3, 32, 32)[[3, 1]])
    assert (source.captions(1), source.prompt(2)) == (("a photo of a automobile",), "a photo of a bird")
    assert source.images([0]).flags.writeable
    small = Cifar10("train", str(files), image_size=[8, 16], template="{name}!")
    assert (small.images([0, 1]).shape, small.prompt(0)) == ((2, 3, 8, 16), "airplane!")
    assert len({source.fingerprint, held_out.fingerprint, small.fingerprint}) == 3


def test_the_packed_file_is_unpacked(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "packed" / CIFAR10.filename
    packed.parent.mkdir()
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(files / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(packed.read_bytes()).hexdigest())
    assert Cifar10("train", str(packed.parent)).fingerprint == Cifar10("train", str(files)).fingerprint


def test_without_files_it_says_what_to_put_where(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    words = ["data=cifar10", "experiment=demo", "text=words"]
    assert "neither cifar-10-batches-py/ nor" in refused(train.main, *words, f"data.source.path={tmp_path}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    message = refused(train.main, *words)
    assert "cannot be downloaded" in message
    assert "allowed: a folder with cifar-10-batches-py/ or cifar-10-python.tar.gz as data.source.path" in message
    # another file than the known one is never unpickled
    (files / CIFAR10.base_folder / "data_batch_2").write_bytes(pickle.dumps({}))
    assert "is not what torchvision knows" in refused(train.main, *words, f"data.source.path={files}")
