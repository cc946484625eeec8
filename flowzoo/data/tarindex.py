"""What a tar of captioned images holds, found out once and kept, so that every image can be read at random.

An index is a safetensors file: where each image lies, its CRC-32, and the texts themselves. Beside its tar it is called
<tar>.index; where it cannot be written there it lies in a cache folder. It is made anew where the tar has changed.
"""

import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flowzoo.data.archive import is_text
from flowzoo.data.decoding import suffixes
from flowzoo.data.passed import Passed
from flowzoo.data.sidecars import captions_in
from flowzoo.data.storage import Store
from flowzoo.paths import user_path
from flowzoo.randomness import word
from flowzoo.runs.files import RunError, replace

VERSION = 1
TXT, JSON = ".txt", ".json"
_KINDS = (TXT, JSON)
IMAGE_LARGEST, TEXT_LARGEST = 2**28, 2**20  # bytes of a member that is read
_ARRAYS = ("start", "size", "crc", "draw", "spans", "text_crc", "has_txt")


@dataclass
class TarIndex:
    """The images of one tar in its order, n of them."""

    path: Path  # of the index
    stamp: str  # of the tar that it is of
    start: np.ndarray  # int64 [n], where the bytes of the image begin
    size: np.ndarray  # int64 [n], bytes
    crc: np.ndarray  # uint32 [n]
    draw: np.ndarray  # int64 [n], a hash of the key and the image, by which splits are chosen
    spans: np.ndarray  # int64 [n, 3], key, txt and json end there in the texts; each begins where the one before ends
    text_crc: np.ndarray  # uint32 [n], of txt and json together
    has_txt: np.ndarray  # bool [n], whether there is a caption in the txt
    passed: Passed

    def __len__(self) -> int:
        return len(self.start)

    def key(self, row: int) -> str:
        """What the names of a sample's files have in common."""
        return self._text(row, 0).decode()

    def txt(self, row: int) -> tuple[str, ...]:
        """The captions of the txt, a line each."""
        return captions_in(self._text(row, 1).decode(errors="replace")) if self.has_txt[row] else ()

    def json(self, row: int) -> Any:
        """What the json says; None where it cannot be read."""
        try:
            return json.loads(self._text(row, 2))
        except (ValueError, RecursionError):
            return None

    def _text(self, row: int, kind: int) -> bytes:
        before = self.spans[row, kind - 1] if kind else self.spans[row - 1, 2] if row else 0
        return _texts(str(self.path), self.stamp)[int(before) : int(self.spans[row, kind])].tobytes()


@lru_cache(maxsize=256)
def _texts(path: str, stamp: str) -> Any:
    """The texts of an index, of which slices are read from the disk."""
    file = safe_open(path, framework="np")
    if (file.metadata() or {}).get("stamp") != stamp:
        raise RunError(f"{path} is another than when the data were opened: its tar has changed")
    return file.get_slice("texts")


def index_of(store: Store, tar: str) -> TarIndex:
    """The index of a tar, read where it is kept and belongs to the tar as it is, else made and kept.

    It is kept beside a tar of this machine where that is allowed, else in the user's cache. Raises RunError where it
    can be kept nowhere, or the tar does not come from where it lies.
    """
    stamp = f"{VERSION} {store.stamp(tar)}"
    places = _places(store, tar)
    for place in places:
        if (index := _read(place, stamp)) is not None:
            return index
    try:
        content = _made(store, tar, stamp)
    except Exception as error:  # of the disk or the network: each of fsspec's packages has its own
        raise RunError(f"{store.url(tar)} cannot be read: {' '.join(str(error).split())}") from error
    place = next(place for place in places if place is places[-1] or os.access(place.parent, os.W_OK))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {place.parent}: {error.strerror}; XDG_CACHE_HOME names another folder") from error
    replace(place, content)
    index = _read(place, stamp)
    assert index is not None
    return index


def _places(store: Store, tar: str) -> list[Path]:
    """Where the index of a tar may lie, the best first."""
    name = f"{tar.rpartition('/')[2]}.{word(store.url(tar)):016x}.index"
    kept = user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "flowzoo" / "tars" / name
    return [Path(f"{tar}.index"), kept] if store.is_local else [kept]


def _read(path: Path, stamp: str) -> TarIndex | None:
    """None where there is none, it is damaged, or it is of another tar."""
    with suppress(OSError, SafetensorError, LookupError, ValueError), safe_open(path, framework="np") as file:
        about = file.metadata() or {}
        if about.get("stamp") == stamp:
            passed = Passed()
            for reason, names in json.loads(about["passed"]).items():
                passed.add(reason, *names)
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            return TarIndex(path, stamp, passed=passed, **arrays)
    return None


@dataclass
class _Sample:
    """The members of one key."""

    start: int = 0
    size: int = -1  # no image yet
    crc: int = 0
    texts: dict[str, bytes] = field(default_factory=dict)


def _made(store: Store, tar: str, stamp: str) -> bytes:
    """The content of an index."""
    name, passed = tar.rpartition("/")[2], Passed()
    samples: dict[str, _Sample] = {}
    with store.open(tar) as stream:
        for member in _members(stream, name, passed):
            key, suffix = _split(member.name)
            told = f"{name}/{member.name}"
            if suffix not in _KINDS and suffix not in suffixes():
                passed.add(f"no images: {suffix or 'no suffix'}", told)
                continue
            if member.size > (TEXT_LARGEST if suffix in _KINDS else IMAGE_LARGEST):
                passed.add(f"larger than {TEXT_LARGEST >> 20} MiB as text or {IMAGE_LARGEST >> 20} as image", told)
                continue
            sample = samples.setdefault(key, _Sample())
            if suffix in sample.texts or (suffix not in _KINDS and sample.size >= 0):
                passed.add("members that come twice", told)
                continue
            stream.seek(member.offset_data)
            data = stream.read(member.size)
            if suffix in _KINDS:
                sample.texts[suffix] = data
            else:
                sample.start, sample.size, sample.crc = member.offset_data, member.size, zlib.crc32(data)
    if lonely := [f"{name}/{key}" for key, sample in samples.items() if sample.size < 0]:
        passed.add("texts without an image", *lonely)
    return _content({key: sample for key, sample in samples.items() if sample.size >= 0}, stamp, passed)


def _content(samples: dict[str, _Sample], stamp: str, passed: Passed) -> bytes:
    texts, spans, has_txt = bytearray(), [], []
    for key, sample in samples.items():
        ends = []
        for part in (key.encode(), *(sample.texts.get(kind, b"") for kind in _KINDS)):
            texts += part
            ends.append(len(texts))
        spans.append(ends)
        try:
            has_txt.append(bool(captions_in(sample.texts.get(TXT, b"").decode("utf-8-sig"))))
        except UnicodeDecodeError:
            has_txt.append(False)
    each, n = list(samples.items()), len(samples)
    arrays: dict[str, np.ndarray] = {
        "start": np.array([s.start for _, s in each], np.int64),
        "size": np.array([s.size for _, s in each], np.int64),
        "crc": np.array([s.crc for _, s in each], np.uint32),
        "draw": np.array([word("val", key, s.crc, s.size) for key, s in each], np.int64),
        "spans": np.array(spans, np.int64).reshape(n, 3),
        "text_crc": np.array([zlib.crc32(b"\0".join(s.texts.get(k, b"") for k in _KINDS)) for _, s in each], np.uint32),
        "has_txt": np.array(has_txt, bool),
        "texts": np.frombuffer(bytes(texts), np.uint8),
    }
    return save(arrays, {"stamp": stamp, "passed": json.dumps(passed.names)})


def _members(stream: BinaryIO, name: str, passed: Passed) -> Iterator[tarfile.TarInfo]:
    """The files of a tar that may be read, as far as it can be read; nothing is ever unpacked."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or it would keep all of them
                told = f"{name}/{member.name}"
                if member.offset_data + member.size > size:
                    passed.add("tars that end early", told)
                    return
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    passed.add("links, devices and sparse files", told)
                elif member.name.startswith("/") or ".." in member.name.split("/") or not is_text(member.name):
                    passed.add("names that lead out of the tar, or are no text", told)
                else:
                    yield member
            stream.seek(tar.offset)
            end = stream.read(tarfile.BLOCKSIZE)
            if any(end):
                passed.add("tars that are damaged in the middle", name)
            elif len(end) < tarfile.BLOCKSIZE:
                passed.add("tars without the mark of their end", name)
    except (tarfile.TarError, MemoryError, OverflowError, EOFError) as error:
        kind = "tars that end early" if "unexpected end" in str(error) else "no tars, or damaged or compressed ones"
        passed.add(kind, name)


def _split(name: str) -> tuple[str, str]:
    """Key and suffix as webdataset has them: the base name is cut at its first dot."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, dot, suffix = base.partition(".")
    return folder + slash + key, (dot + suffix).lower()
