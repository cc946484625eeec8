"""`data=shards`: tars of captioned images, as img2dataset and webdataset write them, read at random."""

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from math import gcd
from typing import Any
from zlib import crc32

import numpy as np

from flowzoo.data import decoding
from flowzoo.data.decoding import decode
from flowzoo.data.passed import Passed
from flowzoo.data.reading import Standins, cores, sizes_told
from flowzoo.data.sidecars import captions_of
from flowzoo.data.source import check_split, check_val_fraction, in_split
from flowzoo.data.storage import Store
from flowzoo.data.tarindex import TarIndex, index_of
from flowzoo.progress import track
from flowzoo.randomness import word
from flowzoo.sizes import pair

TXT, JSON = "txt", "json."  # where a caption comes from: txt, or json.KEY
_FINEST = 100  # shares of captions are hundredths


class Shards:
    """One split of the images in tars, with their captions.

    A sample is the files of a tar whose names are the same up to the first dot of the base name: an image as Pillow's
    formats end, `.txt` with a caption a line, `.json`. `path` names tars: a folder of *.tar, a tar, a pattern with * or
    {00000..00099}, or such a URL of anything that fsspec reads. `val_path` is val; without it a share `val_fraction`
    is, chosen by a hash of key and image. Each tar is read through once and gets an index (flowzoo/data/tarindex.py).

    `captions` says where captions come from: `txt`, or `json.KEY`, which may have further dots for objects inside of
    objects and lead to a text or a list of texts. `synthetic` is another such place; where a sample has both, its
    captions are drawn from there with probability `synthetic_share`, in hundredths. Images without a caption are left
    out. Prompts are of `captions` where there is one.

    Images are read as those of flowzoo.data.folder. The next readable one of the same tar stands for one that is
    unreadable; CorruptImages above 1 %. Members that are no files, or whose names lead elsewhere, are passed over.

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: an impossible value, no image with a caption.
        RunError: what lies elsewhere does not come; an index can be kept nowhere.
    """

    channels = 3

    def __init__(
        self,
        split: str,
        path: str,
        val_path: str | None = None,
        image_size: int | Sequence[int] = 32,
        captions: str = TXT,
        synthetic: str | None = None,
        synthetic_share: float = 0.5,
        background: str = "white",
        val_fraction: float = 0.05,
        name: str = "shards",
    ) -> None:
        self.size = pair(image_size)
        for key, place in (("captions", captions), ("synthetic", synthetic)):
            if place is not None and place != TXT and not place.removeprefix(JSON) != place != JSON:
                raise ValueError(f"{key}={place!r} is no place of captions; allowed: {TXT}, {JSON}KEY")
        if synthetic == captions:
            raise ValueError(f"synthetic={synthetic}: captions are there; allowed is another place, or null")
        share = Fraction(str(synthetic_share))
        if not 0 < share < 1 or (share * _FINEST).denominator != 1:
            raise ValueError(f"synthetic_share={synthetic_share}: allowed are 0.01 to 0.99 in steps of 0.01")
        if val_path is None:
            check_val_fraction(val_fraction)
        self._background = decoding.colour(background)
        self._captions, self._synthetic, self._share = captions, synthetic, share
        self._shared = val_path is None
        self.name = name
        self.split = check_split(split)
        self.path = val_path if split == "val" and val_path is not None else path
        self._store = Store(self.path, ".tar")
        self.passed = Passed()
        self._indices = list(_indices(self._store))
        for each in self._indices:
            self.passed.extend(each.passed)
        rows = [_chosen(each, split, None if val_path else val_fraction) for each in self._indices]
        rows = [self._captioned(tar, chosen) for tar, chosen in enumerate(rows)]
        if not any(map(len, rows)):
            told = "; ".join(self.passed.lines()) or "they are empty"
            raise ValueError(f"the {split} split of {self.path} has no image with a caption in {captions}: {told}")
        self._row = np.concatenate(rows)
        counts = [len(chosen) for chosen in rows]
        self._tar = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
        first = np.repeat(np.cumsum([0, *counts[:-1]]), counts)
        told = f"{self.path} ({split})"
        self._standins = Standins(told, self._name_of, first, np.repeat(counts, counts), self._group)

    def __len__(self) -> int:
        return len(self._row)

    @property
    def corrupt(self) -> int:
        """Images found unreadable so far."""
        return self._standins.corrupt

    @cached_property
    def fingerprint(self) -> str:
        """Covers how images are decoded, where captions come from, and keys, sizes, CRC-32 and texts of all samples."""
        told = (decoding.VERSION, self.size, self._background, self._captions, self._synthetic, str(self._share))
        digest = sha256(f"{told}\n".encode())
        for index, rows in zip(self._indices, self._rows(), strict=True):
            digest.update(index.draw[rows].tobytes())
            digest.update(index.text_crc[rows].tobytes())
        return digest.hexdigest()[:16]

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, 3, H, W]."""
        ahead: dict[int, bytes] = {}
        if not self._store.is_local:
            wanted = list(dict.fromkeys(self._standins.of(int(i)) for i in indices))
            ahead = dict(zip(wanted, self._store.read_all([self._place(i) for i in wanted]), strict=True))

        def load(i: int) -> np.ndarray:
            return decode(self._read(i) if i not in ahead else self._checked(i, ahead[i]), self.size, self._background)

        return self._standins.images(indices, self.size, load)

    def captions(self, index: int) -> tuple[str, ...]:
        """Those of the image, or of the one that stands for it; repeated so that each place has its share."""
        i = self._standins.of(index)
        original, synthetic = self._told(i, self._captions), self._told(i, self._synthetic)
        if not original or not synthetic:
            return original or synthetic
        # each of n originals has the probability (1 - share) / n, each of m synthetic ones share / m
        share = self._share
        weights = (share.denominator - share.numerator) * len(synthetic), share.numerator * len(original)
        each = [weight // gcd(*weights) for weight in weights]
        return original * each[0] + synthetic * each[1]

    def prompt(self, index: int) -> str:
        """The first of the image's own captions, readable or not: prompts do not depend on what was read before."""
        return (self._told(index, self._captions) or self._told(index, self._synthetic))[0]

    def about(self) -> list[tuple[str, str]]:
        """What people should know before they train on this, as pairs of a word and a text."""
        if self._shared and self.split == "val":
            return []
        lines = [("tars", f"{len(self._indices):,}, such as {self._store.url(self._store.files[0])}")]
        mixed = f" and, of {float(self._share):.0%} of the draws, {self._synthetic}" if self._synthetic else ""
        lines.append(("captions from", self._captions + mixed))
        lines.append(("sizes", sizes_told(lambda i: io.BytesIO(self._read(i)), len(self), self.size)))
        return lines + [("passed over", line) for line in self.passed.lines()]

    def _captioned(self, tar: int, rows: np.ndarray) -> np.ndarray:
        """Those of some rows of a tar that have a caption in one of the places."""
        index = self._indices[tar]
        places = [place for place in (self._captions, self._synthetic) if place is not None]
        has = index.has_txt[rows] if TXT in places else np.zeros(len(rows), bool)
        for k in np.flatnonzero(~has):
            has[k] = any(_captions(index, int(rows[k]), place) for place in places if place != TXT)
        name = self._store.files[tar].rpartition("/")[2]
        self.passed.add("images without a caption", *(f"{name}/{index.key(int(row))}" for row in rows[~has]))
        return rows[has]

    def _rows(self) -> Iterator[np.ndarray]:
        """Of each tar the rows that are in this split."""
        ends = np.searchsorted(self._tar, np.arange(len(self._indices)), "right")
        return (self._row[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True))

    def _told(self, i: int, place: str | None) -> tuple[str, ...]:
        return () if place is None else _captions(self._indices[self._tar[i]], int(self._row[i]), place)

    def _place(self, i: int) -> tuple[str, int, int]:
        """The tar of an image, and where its bytes are."""
        tar, row = self._tar[i], self._row[i]
        index = self._indices[tar]
        return self._store.files[tar], int(index.start[row]), int(index.size[row])

    def _read(self, i: int) -> bytes:
        place = self._place(i)
        return self._checked(i, self._store.read(*place) if self._store.is_local else self._store.read_all([place])[0])

    def _checked(self, i: int, data: bytes) -> bytes:
        if crc32(data) != self._indices[self._tar[i]].crc[self._row[i]]:
            raise ValueError("its CRC-32 is not the one in the index: the tar has changed")
        return data

    def _name_of(self, i: int) -> str:
        tar = self._tar[i]
        return f"{self._store.files[tar].rpartition('/')[2]}/{self._indices[tar].key(int(self._row[i]))}"

    def _group(self, i: int) -> str:
        return self._store.url(self._store.files[self._tar[i]])


def _indices(store: Store) -> Iterator[TarIndex]:
    """The index of each tar, in their order. Processes that begin together make those of different tars first."""
    n = len(store.files)
    found: dict[int, TarIndex] = {}

    def find(k: int) -> None:
        found[k] = index_of(store, store.files[k])

    begin = word(os.getpid()) % n
    with ThreadPoolExecutor(cores() if store.is_local else 4 * cores()) as pool:
        try:
            for _ in track(pool.map(find, [(begin + k) % n for k in range(n)]), "indices of tars", n):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return (found[k] for k in range(n))


def _chosen(index: TarIndex, split: str, val_fraction: float | None) -> np.ndarray:
    """The rows of a tar that are in a split; all of them where val_fraction is None."""
    if val_fraction is None:
        return np.arange(len(index))
    return np.flatnonzero(in_split(index.draw, split, val_fraction))


def _captions(index: TarIndex, row: int, place: str) -> tuple[str, ...]:
    """From `txt` or `json.KEY`; empty where there are none."""
    if place == TXT:
        return index.txt(row)
    node: Any = index.json(row)
    for key in place.removeprefix(JSON).split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return captions_of(node)
