"""Tars at random: the same batches as from a folder of the same files, indices that follow their tars, refusals."""

import io
import itertools
import pickle
import shutil
import tarfile
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import numpy as np
import pytest
import tars
import torch

from flowzoo import train
from flowzoo.data import storage
from flowzoo.data.folder import Folder
from flowzoo.data.loader import Batches
from flowzoo.data.shards import Shards
from flowzoo.data.storage import expanded
from flowzoo.encoders.text import TextEncoders
from flowzoo.encoders.words import WordEncoder
from flowzoo.runs.files import RunError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tars.folder(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(made, tmp_path / "tars", ignore=shutil.ignore_patterns("*.index"))
    return tmp_path / "tars"


def whole(path: Path | str, **settings: object) -> Shards:
    """All images as one split."""
    return Shards("train", str(path), str(path), image_size=8, **settings)  # type: ignore[arg-type]


def test_it_equals_the_folder_of_the_unpacked_files(made: Path, tmp_path: Path) -> None:
    for tar in sorted(made.glob("*.tar")):
        with tarfile.open(tar) as file:
            file.extractall(tmp_path / "files", filter="data")
    folder, shards = Folder("train", str(tmp_path / "files"), str(tmp_path / "files"), image_size=8), whole(made)
    every = range(len(shards))
    assert len(shards) == len(folder) == 120
    np.testing.assert_array_equal(shards.images(every), folder.images(every))
    assert [shards.captions(i) for i in every] == [folder.captions(i) for i in every]
    assert [shards.prompt(i) for i in every] == [f"picture {i}" for i in every]
    order = np.random.default_rng(0).permutation(120)
    np.testing.assert_array_equal(shards.images(order.tolist() * 3), np.tile(shards.images(every)[order], (3, 1, 1, 1)))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(shards)).images([7]), shards.images([7]))


def test_threads_share_files_that_are_opened_and_forgotten(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_opened", lru_cache(maxsize=1)(storage._opened.__wrapped__))
    source = whole(made)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda k: source.images([k])[0], list(range(120)) * 5))
    assert source.corrupt == 0
    np.testing.assert_array_equal(np.stack(read[:120]), source.images(range(120)))


def test_splits_are_a_partition(made: Path) -> None:
    both = [Shards(split, str(made), val_fraction=0.25, image_size=8) for split in ("train", "val")]
    names = [source.prompt(i) for source in both for i in range(len(source))]
    assert sorted(names) == sorted(f"picture {i}" for i in range(120))
    assert 10 < len(both[1]) < 55
    assert len({source.fingerprint for source in both}) == 2


@pytest.mark.parametrize("cache", ["device", "none"])
def test_batches_are_a_function_of_seed_and_step_on_any_number_of_ranks_and_workers(made: Path, cache: str) -> None:
    def batches(**settings: object) -> Batches:
        given = {"batch_size": 12, "seed": 3, "device": "cpu", "workers": 0, "cache": cache}
        text = TextEncoders({"words": WordEncoder(4, 8)})
        return Batches(whole(made, synthetic="json.dense"), text, **(given | settings))  # type: ignore[arg-type]

    steps = list(itertools.islice(batches(), 25))
    resumed = list(itertools.islice(batches(workers=2).iterate(10), 15))
    ranks = [batches(batch_size=12, rank=rank, world=3) for rank in range(3)]
    for step, (one, again) in enumerate(zip(steps[10:], resumed, strict=True), 10):
        parts = [rank.at(step) for rank in ranks]
        for x in (again.images, torch.cat([part.images for part in parts])):
            assert torch.equal(x, one.images)
        for y in (again.text.tokens[0], torch.cat([part.text.tokens[0] for part in parts])):
            assert torch.equal(y, one.text.tokens[0])


def test_captions_are_mixed_at_a_ratio(made: Path) -> None:
    source = whole(made, captions="json.caption", synthetic="json.dense", synthetic_share=0.25)
    drawn = Counter(source.captions(5))
    assert drawn == {"picture 5": 6, "all of 5": 1, "5 in detail": 1}
    assert source.prompt(5) == "picture 5"
    assert len({source.fingerprint, whole(made).fingerprint, whole(made, synthetic="json.dense").fingerprint}) == 3
    nested = [{"png": tars.picture(0), "json": b'{"a": {"b": "far inside"}}'}, {"png": tars.picture(1), "json": b"{"}]
    tar = tars.write(made.parent / "nested" / "0.tar", nested)
    source = whole(tar, captions="json.a.b", synthetic="txt")
    assert [source.captions(i) for i in range(len(source))] == [("far inside",)]
    assert source.passed.names == {"images without a caption": ["0.tar/000000001"]}


@pytest.mark.parametrize(
    "settings",
    [{"captions": "json."}, {"captions": "xml"}, {"synthetic": "txt"}, {"synthetic_share": 0.333}, {"val_fraction": 1}],
)
def test_impossible_settings_are_refused(made: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Shards("train", str(made), **settings)  # type: ignore[arg-type]


def test_paths_are_folders_files_patterns_and_urls(copy: Path) -> None:
    everything = whole(copy)
    assert expanded("a{08..10}b{1..2}") == [f"a{n}b{k}" for n in ("08", "09", "10") for k in (1, 2)]
    for path in (f"{copy}/*.tar", f"{copy}/{{00000..00002}}.tar", copy.as_uri()):
        assert whole(path).fingerprint == everything.fingerprint
    assert len(whole(copy / "00001.tar")) == len(whole(f"{copy}/0000[1].tar")) == 40
    for path in (copy / "3.tar", f"{copy}/{{2..3}}.tar", copy / "*.zip"):
        with pytest.raises(FileNotFoundError, match=r"\.tar|\.zip"):
            whole(path)
    with pytest.raises(ValueError, match=r"path=nowhere://x: .*nowhere"):
        whole("nowhere://x")


def test_remote_tars_are_read_by_ranges_and_indexed_in_the_cache(copy: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for tar in copy.glob("*.tar"):
        memory.pipe(f"/bucket/{tar.name}", tar.read_bytes())
    here, there = whole(copy), whole("memory://bucket")
    assert there.fingerprint == here.fingerprint
    np.testing.assert_array_equal(there.images(range(120)), here.images(range(120)))
    assert len(list((tmp_path / "cache" / "flowzoo" / "tars").glob("*.index"))) == 3
    memory.pipe("/bucket/00002.tar", (copy / "00001.tar").read_bytes())
    assert whole("memory://bucket/00002.tar").prompt(0) == "picture 40"


class Ranges(SimpleHTTPRequestHandler):
    """Serves parts of files, as object stores do."""

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        first, last = map(int, self.headers.get("Range", f"bytes=0-{len(data) - 1}").removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def send_head(self) -> None:  # HEAD
        self.send_response(200)
        size = Path(self.translate_path(self.path)).stat().st_size
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_loader_processes_have_connections_of_their_own(copy: Path) -> None:
    pytest.importorskip("aiohttp")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(copy))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{{00000..00002}}.tar"
        try:
            there = Batches(whole(url), None, batch_size=20, seed=0, device="cpu", cache="none", workers=2)
            here = Batches(whole(copy), None, batch_size=20, seed=0, device="cpu", cache="none", workers=0)
            for one, other, _ in zip(there.iterate(2), here.iterate(2), range(4), strict=False):
                assert torch.equal(one.images, other.images)
        finally:
            server.shutdown()


def test_what_does_not_come_from_elsewhere_is_no_broken_image(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/gone/0.tar", (copy / "00000.tar").read_bytes())
    source = whole("memory://gone")
    memory.rm("/gone/0.tar")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(RunError, match=r"memory:///gone/0\.tar or another cannot be read"):
        source.images([0])
    assert source.corrupt == 0


def test_an_index_is_made_once_and_anew_when_its_tar_changes(copy: Path, tmp_path: Path) -> None:
    first = whole(copy)
    indices = sorted(copy.glob("*.tar.index"))
    assert [path.name for path in indices] == [f"{k:05}.tar.index" for k in range(3)]
    before = [path.stat().st_mtime_ns for path in indices]
    assert whole(copy).fingerprint == first.fingerprint
    assert [path.stat().st_mtime_ns for path in indices] == before
    tars.write(copy / "00001.tar", [tars.sample(i) for i in range(500, 510)], 500)
    changed = whole(copy)
    assert len(changed) == 90
    assert {changed.prompt(i) for i in range(40, 50)} == {f"picture {i}" for i in range(500, 510)}
    assert [path.stat().st_mtime_ns == t for path, t in zip(indices, before, strict=True)] == [True, False, True]
    indices[0].write_bytes(indices[0].read_bytes()[:100])
    assert whole(copy).fingerprint == changed.fingerprint
    first.images([0])
    with pytest.raises(RunError, match="its tar has changed"):
        first.images(range(40, 80))  # opened before


def test_an_index_that_cannot_lie_beside_its_tar_goes_to_the_cache(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    whole(copy)
    assert not list(copy.glob("*.index"))
    assert len(list((tmp_path / "cache" / "flowzoo" / "tars").glob("*.index"))) == 3


def test_what_is_no_image_with_a_caption_is_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as tar:
        good = tars.picture(0)
        for i in range(200):
            for suffix, data in tars.sample(i).items():
                tars.add(tar, f"./in/{i:03}.{suffix}", data)
        tars.add(tar, "../out.png", good)
        tars.add(tar, "/root.png", good)
        tars.add(tar, "in/link.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        tars.add(tar, "in/hard.png", b"", type=tarfile.LNKTYPE, linkname="in/000.png")
        tars.add(tar, "in/empty.png", good)
        tars.add(tar, "in/empty.txt", b" \n")
        tars.add(tar, "in/alone.txt", b"no image")
        tars.add(tar, "in/long.png", good)
        tars.add(tar, "in/long.txt", b"word " * 2000)
        tars.add(tar, "in/000.png", tars.picture(999))
        tars.add(tar, "in/huge.txt", b"x" * (2**20 + 1))
        tars.add(tar, "in/000.seg.npy", b"numbers")
        tars.add(tar, "in/broken.png", good[:60])
        tars.add(tar, "in/broken.txt", b"a broken picture")
    source = whole(path)
    assert len(source) == 202
    assert source.passed.names == {
        "names that lead out of the tar, or are no text": ["odd.tar/../out.png", "odd.tar//root.png"],
        "links, devices and sparse files": ["odd.tar/in/link.png", "odd.tar/in/hard.png"],
        "images without a caption": ["odd.tar/in/empty"],
        "texts without an image": ["odd.tar/in/alone"],
        "members that come twice": ["odd.tar/in/000.png"],
        "larger than 1 MiB as text or 256 as image": ["odd.tar/in/huge.txt"],
        "no images: .seg.npy": ["odd.tar/in/000.seg.npy"],
    }
    assert len(source.prompt(200)) == 9999
    np.testing.assert_array_equal(source.images([201]), source.images([0]))
    assert source.captions(201) == source.captions(0)
    assert source.corrupt == 1


@pytest.mark.parametrize("cut", [700, 1024 * 9 + 300, -1024 * 5])
def test_a_tar_that_ends_early_gives_what_it_has(copy: Path, cut: int) -> None:
    path = copy / "00001.tar"
    path.write_bytes(path.read_bytes()[:cut])
    source = whole(copy)
    assert 80 <= len(source) < 120
    assert any("00001.tar" in line for line in source.passed.lines())
    source.images(range(len(source)))


def test_damage_in_the_middle_and_files_that_are_no_tars(copy: Path, tmp_path: Path) -> None:
    path = copy / "00001.tar"
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        start = tar.getmembers()[30].offset
    data[start : start + 512] = b"\x07" * 512
    path.write_bytes(data)
    (copy / "00002.tar").write_bytes(b"<html>not found</html>" * 100)
    source = whole(copy)
    assert len(source) == 40 + 10
    told = " ".join(source.passed.lines())
    assert "damaged in the middle (1): 00001.tar" in told
    assert "no tars, or damaged or compressed ones (1): 00002.tar" in told
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tars.add(tar, "1.png", tars.picture(0))
    with pytest.raises(ValueError, match=r"no image with a caption in txt: .*compressed"):
        whole(tmp_path / "packed.tar")


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
        member = tarfile.TarInfo(name)
        member.size, member.type = size, kind
        return member.tobuf(tarfile.GNU_FORMAT)

    good = io.BytesIO()
    with tarfile.open(fileobj=good, mode="w") as tar:
        for suffix, data in tars.sample(0).items():
            tars.add(tar, f"0.{suffix}", data)
    with tarfile.open(fileobj=io.BytesIO(good.getvalue())) as tar:
        end = tar.getmembers()[-1].offset_data + 512
    for number, bomb in enumerate((header("1.png", 2**60), header("1", 2**60, b"x"), header("1", 2**60, b"L"))):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(good.getvalue()[:end] + bomb)
        source = whole(path)
        assert len(source) == 1
        assert str(number) in " ".join(source.passed.lines())


def test_a_command_trains_from_tars_and_refuses_in_one_line(made: Path, tmp_path: Path, monkeypatch, refused) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data=shards", "experiment=demo", "text=words", "trainer.accelerator=cpu"]
    assert "no such file or folder: " in refused(train.main, *words, "data.source.path=there")
    assert "memorie" in refused(train.main, *words, "data.source.path=memorie://there/*.tar")
    (tmp_path / "empty").mkdir()
    assert "no files .tar at empty" in refused(train.main, *words, "data.source.path=empty")
    with zipfile.ZipFile(tmp_path / "0.tar", "w") as file:
        file.writestr("0.png", tars.picture(0))
    assert "no tars, or damaged or compressed" in refused(train.main, *words, f"data.source.path={tmp_path}/0.tar")
