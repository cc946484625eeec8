"""Folders and zips give the same images, captions and fingerprints; broken images are skipped, named and counted."""

import io
import logging
import os
import pickle
import random
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from flowzoo import train
from flowzoo.data.folder import Folder
from flowzoo.data.reading import CorruptImages
from flowzoo.data.source import measure
from flowzoo.runs.config import config_loader

CLASSES = ("cat", "fire_truck", "n0001")
ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("FLOWZOO_SHARED_DATA", ROOT.parent / "shared/data"))
CIFAR, EMOJI = SHARED / "cifar10-train.zip", SHARED / "emoji.zip"
ABSENT = "{} is not there: set FLOWZOO_SHARED_DATA to the folder that holds it"


def encoded(seed: int, kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    kinds = (("png", "PNG"), ("JPG", "JPEG"), ("webp", "WEBP"), ("jpeg", "JPEG"))
    for c, name in enumerate(CLASSES):
        (root / name).mkdir()
        for i in range(100):
            suffix, kind = kinds[i % 4]
            (root / name / f"{i:03}.{suffix}").write_bytes(encoded(100 * c + i, kind))
    (root / "cat" / "._000.png").write_bytes(b"macOS")
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / "loose.png").write_bytes(encoded(999))
    return root


def zipped(directory: Path, target: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    files = [p for p in directory.rglob("*") if p.is_file()]
    random.Random(0).shuffle(files)
    with zipfile.ZipFile(target, "w", compression) as archive:
        for file in files:
            archive.write(file, file.relative_to(directory).as_posix())
    return target


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_zip_equals_its_directory(directory: Path, tmp_path: Path, split: str, compression: int) -> None:
    path = zipped(directory, tmp_path / "images.zip", compression)
    a, b = (Folder(split, str(p), image_size=8, val_fraction=0.2) for p in (directory, path))
    everything = range(len(a))
    np.testing.assert_array_equal(a.images(everything), b.images(everything))
    assert [a.captions(i) for i in everything] == [b.captions(i) for i in everything]
    assert a.fingerprint == b.fingerprint
    assert a.classes == CLASSES
    # Threads (many at once), one by one, in any order, in another process: the same.
    order = np.random.default_rng(0).permutation(len(a))
    np.testing.assert_array_equal(np.concatenate([b.images([int(i)]) for i in order]), a.images(everything)[order])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(b)).images([3]), a.images([3]))


def test_the_hash_split_is_a_partition(directory: Path) -> None:
    train, val = (Folder(s, str(directory), image_size=8, val_fraction=0.2) for s in ("train", "val"))
    both = [image.tobytes() for part in (train, val) for image in part.images(range(len(part)))]
    assert len(both) == len(set(both)) == 300
    assert 30 < len(val) < 90
    assert train.fingerprint != val.fingerprint


def test_val_path_is_the_val_split(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory / "cat", tmp_path / "val" / "cat")
    assert len(Folder("train", str(directory), str(tmp_path / "val"))) == 300
    assert len(Folder("val", str(directory), str(tmp_path / "val"))) == 100


def test_captions_rename_and_take_synonyms(directory: Path) -> None:
    names = {"n0001": ["tench", "Tinca tinca"], "cat": "house cat"}
    source = Folder("train", str(directory), names=names)
    captions = {source.captions(i) for i in range(len(source))}
    assert captions == {
        ("a photo of a tench", "a photo of a Tinca tinca"),
        ("a photo of a house cat",),
        ("a photo of a fire truck",),
    }
    assert source.prompt(len(source) - 1) == "a photo of a tench"
    drawn = Folder("train", str(directory), template="{name}, drawn {badly}")
    assert drawn.prompt(0) == "cat, drawn {badly}"


def test_wordnet_names_the_folders_of_imagenet(tmp_path: Path, refused: Callable[..., str]) -> None:
    for k, number in enumerate(("n01440764", "n02084071", "dog")):
        (tmp_path / number).mkdir()
        for i in range(2):
            (tmp_path / number / f"{i}.png").write_bytes(encoded(2 * k + i))
    words = {"path": str(tmp_path), "val_path": str(tmp_path)}
    with config_loader() as loader:
        cfg = loader.load_configuration("train", ["data=imagenet"], RunMode.RUN).data
    source = instantiate(
        {**OmegaConf.to_container(cfg.source, resolve=False), "name": cfg.name, **words}, split="train"
    )
    assert [source.captions(i)[:2] for i in (0, 2, 4)] == [
        ("a photo of a dog",),
        ("a photo of a tench", "a photo of a Tinca tinca"),
        ("a photo of a dog", "a photo of a domestic dog"),
    ]
    with pytest.raises(ValueError, match="allowed are wordnet"):
        Folder("train", **words, names="wordnets")
    shutil.rmtree(tmp_path / "n01440764")
    shutil.rmtree(tmp_path / "n02084071")
    imagenet = ["data=imagenet", *(f"data.source.{key}={value}" for key, value in words.items())]
    assert "no folder is a number of WordNet" in refused(train.main, *imagenet, "experiment=demo", "text=words")


def test_content_changes_the_fingerprint(directory: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        return Folder("train", str(copy), str(copy), image_size=8).fingerprint

    copy = tmp_path / "images"
    shutil.copytree(directory, copy)
    first = fingerprint()
    assert first == Folder("train", str(directory), str(directory), image_size=8).fingerprint
    assert first != Folder("train", str(directory), str(directory), image_size=9).fingerprint
    shapes = [
        Folder("train", str(directory), str(directory), image_size=s).fingerprint for s in ([8, 8], [8, 9], [9, 8])
    ]
    assert shapes[0] == first
    assert len(set(shapes)) == 3
    file = copy / "cat/000.png"
    data = file.read_bytes()
    file.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    assert len({first, second := fingerprint()}) == 2
    file.rename(copy / "cat/0000.png")
    assert fingerprint() not in (first, second)


@pytest.fixture
def broken(directory: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str) -> Path:
        copy = tmp_path / "broken"
        shutil.copytree(directory, copy)
        for name in names:
            (copy / name).write_bytes((directory / name).read_bytes()[:50])
        return copy

    return make


def test_corrupt_images_give_way_to_the_next_of_their_class(
    directory: Path, broken: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = broken("cat/005.JPG", "cat/006.webp", "cat/099.jpeg")
    good = Folder("train", str(directory), str(directory), image_size=8).images(range(300))
    source = Folder("train", str(path), str(path), image_size=8)
    with caplog.at_level(logging.WARNING):
        images = source.images(range(300))
    expected = good.copy()
    expected[[5, 6]], expected[99] = good[7], good[0]  # the last of a class gives way to its first
    np.testing.assert_array_equal(images, expected)
    assert source.corrupt == 3
    assert all(name in caplog.text for name in ("cat/005.JPG", "cat/006.webp", "cat/099.jpeg"))
    caplog.clear()
    np.testing.assert_array_equal(source.images([5]), expected[5:6])
    assert not caplog.records  # named once


def test_more_than_one_percent_corrupt_stops(broken: Callable[..., Path]) -> None:
    path = broken("cat/005.JPG", "cat/006.webp", "n0001/000.png", "n0001/099.jpeg")
    source = Folder("train", str(path), str(path), image_size=8)
    with pytest.raises(CorruptImages, match=r"4 of the 300 images of .*broken.*1%.*\.(JPG|webp|png|jpeg)"):
        source.images(range(300))


def test_a_class_without_a_readable_image_stops(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "images")
    (tmp_path / "images/dog").mkdir()
    (tmp_path / "images/dog/0.png").write_bytes(b"no")
    source = Folder("train", str(tmp_path / "images"), str(directory))
    with pytest.raises(CorruptImages, match="'dog'"):
        source.images([100])


def test_a_flipped_bit_in_a_zip_is_corrupt(directory: Path, tmp_path: Path) -> None:
    path = zipped(directory, tmp_path / "images.zip")
    data = bytearray(path.read_bytes())
    content = (directory / "cat/000.png").read_bytes()
    data[data.index(content) + 10] ^= 1
    path.write_bytes(data)
    source = Folder("train", str(path), str(path), image_size=8)
    np.testing.assert_array_equal(source.images([0]), source.images([1]))
    assert source.corrupt == 1


def test_mistakes_are_named(directory: Path, tmp_path: Path) -> None:
    def refused(match: str, error: type[Exception] = ValueError, path: Path = directory, **settings: object) -> None:
        with pytest.raises(error, match=match):
            Folder(**{"split": "train", "path": str(path), **settings})  # type: ignore[arg-type]

    refused("nowhere", FileNotFoundError, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused(r"empty holds no images", path=tmp_path / "empty")
    (tmp_path / "other/cat").mkdir(parents=True)
    (tmp_path / "other/cat/0.heic").write_bytes(b"")
    refused(r"other holds no images that can be read; it holds \.heic", path=tmp_path / "other")
    refused(r"no class folder and without captions, such as 000\.png", path=directory / "cat")
    refused("neither a directory nor a readable zip", path=directory / "cat/000.png")
    refused("zip -r", path=zipped(directory, tmp_path / "bzip2.zip", zipfile.ZIP_BZIP2))
    refused("split='test'", split="test")
    refused("image_size=0", image_size=0)
    refused(r"image_size=\[8, 0\].*\[H, W\]", image_size=[8, 0])
    refused(r"image_size=\[8, 8, 3\]", image_size=[8, 8, 3])
    refused("template='a photo'", template="a photo")
    refused("val_fraction=1.5", val_fraction=1.5)
    refused("the val split of .* is empty", split="val", val_fraction=1e-9)
    refused(r"names=\{cat: \[\]\}", names={"cat": []})
    refused(r"names=\{cat: 5\}", names={"cat": 5})
    refused("names of 1 classes that .* does not hold: kat; allowed: cat, fire_truck, n0001", names={"kat": "cat"})
    refused("background='blak'", background="blak")
    refused("background='#ff000080' is transparent", background="#ff000080")
    refused("captions='files'.*auto, classes, text, metadata", captions="files")


def test_one_broken_link_is_one_unreadable_image(directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "few"
    (copy / "cat").mkdir(parents=True)
    for i in range(3):
        (copy / f"cat/{i}.png").write_bytes(encoded(i))
    (copy / "cat/1.png").unlink()
    (copy / "cat/1.png").symlink_to(tmp_path / "gone.png")
    source = Folder("train", str(copy), str(copy), image_size=8)
    assert len(source) == 3
    source.images(range(3))
    assert source.corrupt == 1
    assert "unreadable" in dict(source.about())["sizes"]


def captioned(root: Path, captions: dict[str, str | None]) -> Path:
    """Images of one colour each, and for each that has one a text file."""
    for i, (name, caption) in enumerate(captions.items()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(root / name)
        if caption is not None:
            (root / name).with_suffix(".txt").write_text(caption)
    return root


def test_captions_come_with_their_images(tmp_path: Path) -> None:
    texts = {f"{'ab'[i % 2]}/{i}.png": f"number {i}\nthe {i}\n" for i in range(9)} | {"top.png": "at the top"}
    root = captioned(tmp_path / "images", texts)
    for path in (root, zipped(root, tmp_path / "images.zip")):
        source = Folder("train", str(path), str(path), image_size=8)
        for i, image in enumerate(source.images(range(10))):
            number = int(image[0, 0, 0])
            assert source.captions(i) == ((f"number {number}", f"the {number}") if number < 9 else ("at the top",))
            assert source.prompt(i) == source.captions(i)[0]
        assert dict(source.about())["captions from"] == "10 text files"
    classes = Folder("train", str(root), str(root), image_size=8, captions="classes")
    assert {classes.prompt(i) for i in range(9)} == {"a photo of a a", "a photo of a b"}
    for given in ({"names": {"a": "b"}}, {"template": "{name}"}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} is for captions from class folders"):
            Folder("train", str(root), **given)  # type: ignore[arg-type]


def test_what_stands_for_an_unreadable_image_brings_its_captions(tmp_path: Path) -> None:
    root = captioned(tmp_path / "images", {f"a/{i:03}.png": f"number {i}" for i in range(120)})
    (root / "a/007.png").write_bytes(b"no")
    source = Folder("train", str(root), str(root), image_size=8)
    red = source.images(range(120))[:, 0, 0, 0]
    assert [source.prompt(7), *source.captions(7)] == ["number 7", "number 8"]
    assert all(source.captions(i) == (f"number {n}",) for i, n in enumerate(red))


def test_captions_change_the_fingerprint(tmp_path: Path) -> None:
    root = captioned(tmp_path / "images", {f"a/{i}.png": f"number {i}" for i in range(4)})
    seen = [Folder("train", str(root), str(root), **given).fingerprint for given in ({}, {"background": "black"})]
    (root / "a/1.txt").write_text("another")
    seen.append(Folder("train", str(root), str(root)).fingerprint)
    assert len(set(seen)) == 3


def test_what_is_passed_over_is_told(tmp_path: Path) -> None:
    root = captioned(tmp_path / "images", {f"n0144076{k}/{i}.png": None for k in (4, 5) for i in range(20)})
    captioned(root, {"@eaDir/a.png": None, "__MACOSX/b.png": None, ".hidden/c.png": None, "loose.png": None})
    (root / "n01440764/Thumbs.db").write_bytes(b"")
    (root / "n01440764/loop").symlink_to(root, target_is_directory=True)
    for name in ("phone.heic", "phone2.HEIC", "notes.txt"):
        (root / "n01440765" / name).write_bytes(b"")
    source = Folder("train", str(root), str(root), image_size=16)
    assert len(source) == 40
    assert source.classes == ("n01440764", "n01440765")
    told = "\n".join(f"{word} {text}" for word, text in source.about())
    for words in (
        "left by other programs (4): .hidden, @eaDir, __MACOSX, ...",
        "links to folders that are read already (1): n01440764/loop",
        "no images: .heic (2): n01440765/phone.heic, n01440765/phone2.HEIC",
        "no images: .txt (1): n01440765/notes.txt",
        "images in no class folder and without a caption (1): loose.png",
        "sizes 8 x 8; 40 smaller than 16",
        "captions say 2 classes by a number, such as 'a photo of a n01440764'",
    ):
        assert words in told
    named = Folder("train", str(root), names={"n01440764": "tench", "n01440765": "goldfish"})
    assert "warning" not in dict(named.about())


def test_the_config_builds_it_and_measure_finds_its_statistics(directory: Path) -> None:
    cfg = OmegaConf.create({"data": OmegaConf.load(ROOT / "conf/data/folder.yaml")})
    cfg.data.name = "pets"
    cfg.data.source.path = cfg.data.source.val_path = str(directory)
    cfg.data.source.names = {"cat": ["cat", "kitty"]}
    source = instantiate(cfg.data.source, split="train")
    assert (source.name, len(source)) == ("pets", 300)
    assert source.captions(0) == ("a photo of a cat", "a photo of a kitty")
    mean, std = measure(source)
    x = source.images(range(300)) / 255
    np.testing.assert_allclose(mean, x.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, x.std((0, 2, 3)), rtol=1e-9)


@pytest.mark.skipif(not CIFAR.exists(), reason=ABSENT.format(CIFAR.name))
def test_cifar10_is_read() -> None:
    source = Folder("train", str(CIFAR), str(CIFAR))
    assert len(source) == 50_000
    assert len(source.classes) == 10
    began = time.perf_counter()
    images = source.images(range(0, 50_000, 25))
    print(f"{len(images) / (time.perf_counter() - began):.0f} images/s")
    assert images.shape == (2000, 3, 32, 32)
    assert source.corrupt == 0
    assert source.prompt(0) == "a photo of a airplane"
    np.testing.assert_allclose(images.mean((0, 2, 3)) / 255, [0.491, 0.482, 0.447], atol=0.01)


@pytest.mark.skipif(not EMOJI.exists(), reason=ABSENT.format(EMOJI.name))
def test_emoji_are_captioned_and_lie_on_white() -> None:
    train, val = (Folder(split, str(EMOJI)) for split in ("train", "val"))
    assert len(train) + len(val) > 3700
    assert train.passed.lines() == []
    assert "metadata.jsonl and" in dict(train.about())["captions from"]
    assert all(len(train.captions(i)) == 1 for i in range(len(train)))
    assert "keycap: 0" in {source.prompt(i) for source in (train, val) for i in range(len(source))}
    corners = train.images(range(0, len(train), 20))[:, :, 0, 0]
    assert (corners == 255).all(1).mean() > 0.8
    assert train.corrupt == 0


def test_other_pixels_under_the_same_name_and_size_are_seen(tmp_path: Path) -> None:
    """In any file of however many."""
    (tmp_path / "cat").mkdir()
    for i in range(5000):
        (tmp_path / "cat" / f"{i:04}.png").write_bytes(b"a" * 20)

    def fingerprint() -> str:
        return Folder("train", str(tmp_path), str(tmp_path)).fingerprint

    first = fingerprint()
    (tmp_path / "cat" / "4321.png").write_bytes(b"b" * 20)
    assert fingerprint() != first
