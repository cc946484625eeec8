"""`data=folder`: images kept as `<class>/<file>` in a directory or an uncompressed zip, captioned by their class."""

import io
import logging
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flowzoo.data.archive import Archive, Directory, StoredZip
from flowzoo.data.source import check_split
from flowzoo.randomness import word

log = logging.getLogger(__name__)

CORRUPT_SHARE = 0.01  # of the split; more stops the run
_THREADED = 256  # images asked for at once from which threads pay
_SAMPLED = 4096  # files whose content enters the fingerprint
# What Pillow's decoders raise on broken files.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class CorruptImages(ValueError):
    """Too many images cannot be read."""


class Folder:
    """One split of images in class folders; the class is the folder a file lies in.

    `path` holds train and `val_path` val; without `val_path` a share `val_fraction` of `path` is val, chosen by a hash
    of each file's name. `names` renames classes and gives synonyms ({"n01440764": ["tench", "Tinca tinca"]}): each is
    one caption alternative, the first makes the prompt. A class without an entry goes by its folder's name, _ read as
    a space.

    Images are read as RGB, the centred square is resized to image_size, antialiased. An unreadable image is replaced by
    the next readable one of its class, so that captions stay true, and named in the log; CorruptImages above 1 %.
    Raises FileNotFoundError for a missing path, ValueError for one without images or with compressed entries.
    """

    channels = 3

    def __init__(
        self,
        split: str,
        path: str,
        val_path: str | None = None,
        image_size: int = 32,
        template: str = "a photo of a {name}",
        names: Mapping[str, str | Sequence[str]] | None = None,
        val_fraction: float = 0.05,
        name: str = "folder",
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size={image_size} is out of range; allowed: 1 or more pixels")
        if "{name}" not in template:
            raise ValueError(f"template={template!r} has no {{name}} for the class name")
        if val_path is None and not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction={val_fraction} is out of range; allowed: between 0 and 1")
        self.name = name
        self.split = check_split(split)
        self.image_size = image_size
        place = Path(val_path if split == "val" and val_path is not None else path)
        self._archive = _open(place)
        files = self._archive.files
        if not files:
            raise ValueError(f"{place} holds no images as <class>/<file> (png, jpg, jpeg or webp)")
        if val_path is None:
            files = [f for f in files if (word("val", f.name) < val_fraction * 2**63) == (split == "val")]
            if not files:
                raise ValueError(
                    f"the {split} split of {place} is empty: val_fraction={val_fraction} of few images; set val_path"
                )
        self._files = files
        folders = [f.folder for f in files]
        unknown = sorted(set(names or {}) - {f.folder for f in self._archive.files})
        if unknown:
            log.warning("names of %d classes that %s does not hold, such as %s", len(unknown), place, unknown[0])
        self.classes = tuple(sorted(set(folders)))
        captions = {c: _captions(c, names or {}, template) for c in self.classes}
        self._captions = [captions[c] for c in folders]
        # Files are sorted by class: each has its class as the range [first, first + count).
        number = np.searchsorted(self.classes, folders)
        self._first = np.searchsorted(number, np.arange(len(self.classes)))[number]
        self._count = np.bincount(number)[number]
        # Shared memory, so that what one loader process finds unreadable counts in all.
        self._corrupt = torch.zeros(len(files), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self._files)

    @property
    def corrupt(self) -> int:
        """Images found unreadable so far."""
        return int(self._corrupt.sum())

    @property
    def fingerprint(self) -> str:
        """Covers image_size, names and sizes of all files, and CRC-32 of at most 4,096 evenly spaced ones of them.

        The same for a directory and a zip of it.
        """
        digest = sha256(f"{self.image_size}\n".encode())
        digest.update("\n".join(f"{f.name} {f.size}" for f in self._files).encode())
        n = min(len(self), _SAMPLED)
        for i in range(n):
            digest.update(struct.pack("<I", self._archive.crc(self._files[i * len(self) // n])))
        return digest.hexdigest()[:16]

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, 3, H, W]."""
        out = np.empty((len(indices), 3, self.image_size, self.image_size), np.uint8)

        def fill(rows: range) -> None:
            for row in rows:
                out[row] = self._image(int(indices[row]))

        if len(indices) < _THREADED:
            fill(range(len(indices)))
        else:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(fill, [range(k, len(indices), threads) for k in range(threads)]))
        return out

    def captions(self, index: int) -> tuple[str, ...]:
        """The template filled with each synonym of the image's class."""
        return self._captions[index]

    def prompt(self, index: int) -> str:
        """The template filled with the first name of the image's class."""
        return self._captions[index][0]

    def _image(self, index: int) -> np.ndarray:
        first, count = int(self._first[index]), int(self._count[index])
        for k in range(count):
            i = first + (index - first + k) % count
            if not self._corrupt[i]:
                try:
                    return decode(self._archive.read(self._files[i]), self.image_size)
                except _UNREADABLE as error:
                    self._mark(i, error)
        raise CorruptImages(f"class {self._files[index].folder!r} of {self._archive.path} has no readable image")

    def _mark(self, i: int, error: Exception) -> None:
        self._corrupt[i] = True
        found = self.corrupt
        log.warning(
            "skipped unreadable image %s of %s (%s); %d so far", self._files[i].name, self._archive.path, error, found
        )
        if found > CORRUPT_SHARE * len(self):
            raise CorruptImages(
                f"{found} of the {len(self)} images of {self._archive.path} ({self.split}) cannot be read, "
                f"more than {CORRUPT_SHARE:.0%}; the last one is {self._files[i].name}: {error}"
            )


def decode(data: bytes, size: int) -> np.ndarray:
    """A png, jpg or webp file -> uint8 [3, size, size]: the centred square, resized with antialiasing."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
        image.draft("RGB", (2 * size, 2 * size))  # JPEG: decode at a fraction, never below twice what is needed
        rgb = image.convert("RGB")
    width, height = rgb.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        rgb = rgb.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    return np.asarray(rgb).transpose(2, 0, 1)


def _open(path: Path) -> Archive:
    if not path.exists():
        raise FileNotFoundError(f"no such directory or zip: {path}")
    return Directory(path) if path.is_dir() else StoredZip(path)


def _captions(folder: str, names: Mapping[str, str | Sequence[str]], template: str) -> tuple[str, ...]:
    given = names.get(folder, folder.replace("_", " "))
    synonyms = (given,) if isinstance(given, str) else tuple(given)
    if not synonyms:
        raise ValueError(f"names gives class {folder!r} no name; allowed: a name or a list of at least one")
    return tuple(template.replace("{name}", synonym) for synonym in synonyms)
