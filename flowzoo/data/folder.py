"""`data=folder`: images in a directory or a zip, captioned by their class folders or by files beside them."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from flowzoo.data import decoding
from flowzoo.data.archive import Archive, File, open_archive
from flowzoo.data.decoding import decode
from flowzoo.data.passed import Passed, shown
from flowzoo.data.reading import Standins, in_threads, sizes_told
from flowzoo.data.sidecars import KINDS, TABLES, Beside, captions_beside
from flowzoo.data.source import check_split, check_val_fraction, in_split
from flowzoo.data.wordnet import wordnet
from flowzoo.paths import user_path
from flowzoo.randomness import word
from flowzoo.sizes import pair

TEMPLATE = "a photo of a {name}"
_NUMBER = re.compile(r"n?\d+")  # a folder's name that says nothing, such as n01440764 of ImageNet


def check_template(template: str) -> None:
    """Raises ValueError for a caption without a place for the name of a class."""
    if "{name}" not in template:
        raise ValueError(f"template={template!r} has no {{name}} for the class name")


class Folder:
    """One split of the images in a directory or a zip: every file whose name ends as Pillow's formats do.

    `path` holds train and `val_path` val; without `val_path` a share `val_fraction` of `path` is val, chosen by a hash
    of each file's name.

    `captions` says where captions come from. `classes`: from the folder that an image lies in, whose name fills
    `template`; `names` renames folders and gives synonyms ({"n01440764": ["tench", "Tinca tinca"]}), each of which is
    one caption alternative, the first makes the prompt; a folder without an entry goes by its name, _ read as a space;
    `wordnet` names the folders that are numbers of WordNet, as ImageNet's are.
    `text`, `metadata`: from files beside the images (flowzoo/data/sidecars.py). `auto`: from those, or from classes
    where there are none. Images without a caption are left out.

    Images are read as RGB, upright, on `background` where they are transparent; image_size is the edge of
    squares or [H, W], and the largest centred part of that shape is resized to it, antialiased. The next readable image
    of its folder stands for an unreadable one, with its captions, and the log names it; CorruptImages above 1 %.

    Raises:
        FileNotFoundError: a missing path.
        ValueError: an impossible value, a path without images, captions that cannot be read or contradict each other.
    """

    channels = 3

    def __init__(
        self,
        split: str,
        path: str,
        val_path: str | None = None,
        image_size: int | Sequence[int] = 32,
        captions: str = "auto",
        template: str = TEMPLATE,
        names: Mapping[str, str | Sequence[str]] | str | None = None,
        background: str = "white",
        val_fraction: float = 0.05,
        name: str = "folder",
    ) -> None:
        self.size = pair(image_size)
        if captions not in KINDS:
            raise ValueError(f"captions={captions!r} is not known; allowed: {', '.join(KINDS)}")
        check_template(template)
        if val_path is None:
            check_val_fraction(val_fraction)
        self._background = decoding.colour(background)
        self._shared = val_path is None
        self.name = name
        self.split = check_split(split)
        self.path = place = user_path(val_path if split == "val" and val_path is not None else path)
        self._archive = archive = open_archive(place)
        self.passed = Passed()
        self.passed.extend(archive.passed)
        images, others = _parted(archive.files)
        if not images:
            there = f"; it holds {', '.join(_by_suffix(others))}" if others else ""
            raise ValueError(f"{place} holds no images that can be read{there}")
        beside = self._beside(archive, images, captions)
        self.caption_files: tuple[str, ...] = tuple(beside.files) if beside else ()
        if beside is None:
            if loose := [f.name for f in images if not f.folder]:
                self.passed.add("images in no class folder and without a caption", *loose)
                images = [f for f in images if f.folder]
            if not images:
                raise ValueError(
                    f"{place} holds images in no class folder and without captions, such as {loose[0]}; allowed: "
                    f"<class>/<file>, <name>.txt beside an image, {' or '.join(TABLES)}"
                )
        else:
            if names or template != TEMPLATE:
                given = "names" if names else "template"
                raise ValueError(
                    f"{given} is for captions from class folders, but {place} has captions in {beside.files[0]}; "
                    f"allowed: captions=classes, or no {given}"
                )
            self.passed.extend(beside.passed)
            self.passed.add("images without a caption", *(f.name for f in images if f.name not in beside.captions))
            images = [f for f in images if f.name in beside.captions]
        used = set(self.caption_files)
        for suffix, unread in _by_suffix(f for f in others if f.name not in used).items():
            self.passed.add(f"no images: {suffix}", *unread)
        files = images
        if val_path is None:
            files = [f for f in files if in_split(word("val", f.name), split, val_fraction)]
            if not files:
                raise ValueError(
                    f"the {split} split of {place} is empty: val_fraction={val_fraction} of {len(images)} images; "
                    "set val_path"
                )
        self._files = files
        folders = [f.folder for f in files]
        self.classes = tuple(sorted(set(folders)))
        if beside is None:
            if isinstance(names, str):
                names = wordnet(names, {f.folder for f in images})
            told = _class_captions({f.folder for f in images}, names or {}, template, place)
            self._captions = [told[folder] for folder in folders]
            self._nameless = [c for c in self.classes if _NUMBER.fullmatch(c) and c not in (names or {})]
        else:
            self._captions = [beside.captions[f.name] for f in files]
            self._nameless = []
        # Files are sorted by folder: each has its folder as the range [first, first + count).
        number = np.searchsorted(self.classes, folders)
        first = np.searchsorted(number, np.arange(len(self.classes)))[number]
        self._standins = Standins(
            f"{place} ({self.split})", self._name_of, first, np.bincount(number)[number], self._group
        )

    def __len__(self) -> int:
        return len(self._files)

    @property
    def corrupt(self) -> int:
        """Images found unreadable so far."""
        return self._standins.corrupt

    @cached_property
    def fingerprint(self) -> str:
        """Covers how images are decoded, and names, sizes, captions and CRC-32 of them all.

        The same for a directory and a zip of it. A zip says its CRCs in its directory; the files of a directory are
        read, which training does anyway.
        """
        height, width = self.size
        size = height if height == width else f"{height}x{width}"
        digest = sha256(f"{decoding.VERSION} {size} {self._background}\n".encode())
        for f, captions in zip(self._files, self._captions, strict=True):
            digest.update(f"{f.name} {f.size} {captions}\n".encode("utf-8", "surrogateescape"))
        crcs = np.zeros(len(self), "<u4")

        def fill(rows: range) -> None:
            for row in rows:
                with suppress(OSError):  # a link that leads nowhere
                    crcs[row] = self._archive.crc(self._files[row])

        in_threads(fill, len(self))
        digest.update(crcs.tobytes())
        return digest.hexdigest()[:16]

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, 3, H, W]."""
        return self._standins.images(indices, self.size, self._image)

    def captions(self, index: int) -> tuple[str, ...]:
        """The image's captions, or those of the image that stands for it: ask after the image, which may be broken."""
        return self._captions[self._standins.of(index)]

    def prompt(self, index: int) -> str:
        """The first of the image's own captions, readable or not: prompts do not depend on what was read before."""
        return self._captions[index][0]

    def about(self) -> list[tuple[str, str]]:
        """What people should know before they train on this, as pairs of a word and a text.

        Nothing of a val split that is a share of the same files as train.
        """
        if self._shared and self.split == "val":
            return []
        lines = []
        if self.caption_files:
            tables = [name for name in self.caption_files if not name.lower().endswith(".txt")]
            texts = len(self.caption_files) - len(tables)
            kinds = ([shown(tables)] if tables else []) + ([f"{texts:,} text files"] if texts else [])
            lines.append(("captions from", " and ".join(kinds)))
        else:
            counts = Counter(f.folder for f in self._files).most_common()
            told = ", ".join(f"{folder} ({n:,})" for folder, n in counts[:6]) + (", ..." if len(counts) > 6 else "")
            lines.append(("classes", f"{len(counts):,}: {told}"))
        lines.append(("sizes", sizes_told(lambda i: self._archive.open(self._files[i]), len(self), self.size)))
        if self._nameless:
            first = self._nameless[0]
            lines.append((
                "warning",
                f"captions say {len(self._nameless):,} classes by a number, such as {self._captions_of(first)[0]!r}: "
                f"name them, data.source.names={{{first}: a name, ...}}",
            ))  # fmt: skip
        return lines + [("passed over", line) for line in self.passed.lines()]

    def _captions_of(self, folder: str) -> tuple[str, ...]:
        return next(told for f, told in zip(self._files, self._captions, strict=True) if f.folder == folder)

    def _beside(self, archive: Archive, images: Sequence[File], captions: str) -> Beside | None:
        """The captions of images by their names; None where images go by their classes."""
        return captions_beside(archive, images, captions)

    def _image(self, index: int) -> np.ndarray:
        return decode(self._archive.read(self._files[index]), self.size, self._background)

    def _name_of(self, index: int) -> str:
        return self._files[index].name

    def _group(self, index: int) -> str:
        return f"the folder {folder!r}" if (folder := self._files[index].folder) else "the top folder"


def _parted(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """Images, and the other files."""
    parts: tuple[list[File], list[File]] = ([], [])
    for file in files:
        parts[_suffix(file) not in decoding.suffixes()].append(file)
    return parts


def _suffix(file: File) -> str:
    return posixpath.splitext(file.name)[1].lower()


def _by_suffix(files: Iterable[File]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for file in files:
        out.setdefault(_suffix(file) or "no suffix", []).append(file.name)
    return out


def _class_captions(
    folders: set[str], names: Mapping[str, str | Sequence[str]], template: str, place: Path
) -> dict[str, tuple[str, ...]]:
    """The captions of each class folder. Raises ValueError for names of no folder, or that are no text."""
    given = {}
    for folder, named in names.items():
        synonyms = (named,) if isinstance(named, str) else tuple(named) if isinstance(named, Sequence) else (named,)
        if not synonyms or not all(isinstance(synonym, str) and synonym.strip() for synonym in synonyms):
            raise ValueError(f"names={{{folder}: {named!r}}}: allowed is a name or a list of at least one, as text")
        given[str(folder)] = synonyms
    if unknown := sorted(set(given) - folders):
        raise ValueError(
            f"names of {len(unknown)} classes that {place} does not hold: {shown(unknown)}; allowed: "
            f"{shown(sorted(folders))}"
        )
    return {
        folder: tuple(template.replace("{name}", s) for s in given.get(folder, (folder.replace("_", " "),)))
        for folder in folders
    }
