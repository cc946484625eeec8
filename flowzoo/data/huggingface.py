"""`data=hf`: what the package datasets reads at random: parquet, a folder of save_to_disk, a name on the hub."""

import io
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from flowzoo.data import decoding
from flowzoo.data.decoding import decode
from flowzoo.data.folder import TEMPLATE, check_template
from flowzoo.data.passed import Passed
from flowzoo.data.reading import Standins, sizes_told
from flowzoo.data.sidecars import captions_of
from flowzoo.data.source import check_split, check_val_fraction, in_split
from flowzoo.network_file import is_hub_name
from flowzoo.paths import user_path
from flowzoo.randomness import word
from flowzoo.sizes import pair

_CAPTIONS = ("text", "caption", "captions", "label")  # columns that are looked for, in this order
_SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk leaves


class HuggingFace:
    """One split of a table with a column of images, `image`, and one of captions, `caption`.

    `path` is a parquet file, a folder of them, a folder that save_to_disk wrote, or OWNER/NAME on the hub, of which
    `config` and `revision` choose. A caption is a text, a list of texts, or a class whose name fills `template`; the
    column is one of text, caption, captions and label where `caption` is None. `val_split` is val; where it is None a
    share `val_fraction` of `train_split` is, chosen by a hash of the row's number. Images are read as those of Folder;
    of all the table only their bytes are read. No code of others is ever run.

    Raises ValueError where the package is not installed, nothing such is there, or columns and splits have other names.
    """

    channels = 3

    def __init__(
        self,
        split: str,
        path: str,
        config: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        image: str = "image",
        caption: str | None = None,
        image_size: int | Sequence[int] = 32,
        template: str = TEMPLATE,
        background: str = "white",
        val_fraction: float = 0.05,
        name: str = "hf",
    ) -> None:
        self.size = pair(image_size)
        check_template(template)
        if val_split is None:
            check_val_fraction(val_fraction)
        self._background = decoding.colour(background)
        self.split, self.name, self.path = check_split(split), name, path
        self._shared = val_split is None
        table = _table(path, config, revision, val_split if split == "val" and val_split is not None else train_split)
        self._image, self._images = image, _images(table, image, path)
        told = _told(table, caption, template, path)
        rows = [i for i in range(len(told)) if not self._shared or in_split(word("val", i), split, val_fraction)]
        self.passed = Passed()
        self.passed.add("images without a caption", *(f"row {i}" for i in rows if not told[i]))
        self._rows = [i for i in rows if told[i]]
        if not self._rows:
            raise ValueError(f"the {split} split of {path} has no image with a caption; val_fraction={val_fraction}")
        self._captions = [told[i] for i in self._rows]
        n = len(self._rows)
        self._standins = Standins(
            f"{path} ({split})", self._name_of, np.zeros(n, np.int64), np.full(n, n), lambda i: "the table"
        )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def corrupt(self) -> int:
        """Images found unreadable so far."""
        return self._standins.corrupt

    @cached_property
    def fingerprint(self) -> str:
        """Covers how images are decoded, their bytes and the captions; all of them are read."""
        digest = sha256(f"{decoding.VERSION} {self.size} {self._background}\n".encode())
        for i, captions in enumerate(self._captions):
            data = self._bytes([i])[0]
            digest.update(f"{len(data)} {crc32(data)} {captions}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, 3, H, W]."""
        wanted = list(dict.fromkeys(self._standins.of(int(i)) for i in indices))
        ahead = dict(zip(wanted, self._bytes(wanted), strict=True))

        def load(i: int) -> np.ndarray:
            return decode(ahead[i] if i in ahead else self._bytes([i])[0], self.size, self._background)

        return self._standins.images(indices, self.size, load)

    def captions(self, index: int) -> tuple[str, ...]:
        """The image's captions, or those of the image that stands for it."""
        return self._captions[self._standins.of(index)]

    def prompt(self, index: int) -> str:
        return self._captions[index][0]

    def about(self) -> list[tuple[str, str]]:
        """What people should know before they train on this, as pairs of a word and a text."""
        if self._shared and self.split == "val":
            return []
        sizes = sizes_told(lambda i: io.BytesIO(self._bytes([i])[0]), len(self), self.size)
        return [("sizes", sizes), *(("passed over", line) for line in self.passed.lines())]

    def _bytes(self, indices: Sequence[int]) -> list[bytes]:
        """Image files; empty where the table has none: it may name files of this machine, which are not opened."""
        each = self._images[[self._rows[i] for i in indices]][self._image]
        return [(one or {}).get("bytes") or b"" for one in each]

    def _name_of(self, i: int) -> str:
        return f"row {self._rows[i]}"


def _table(path: str, config: str | None, revision: str | None, split: str) -> Any:
    """The datasets.Dataset of one split. Raises ValueError."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError("data=hf needs the package datasets: pip install 'flowzoo[data]'") from error
    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each attempt at the network takes two lines
    place = user_path(path)
    parquet = [place] if place.is_file() else sorted(place.glob("**/*.parquet")) if place.is_dir() else []
    try:
        if any((place / file).is_file() for file in _SAVED):
            loaded = datasets.load_from_disk(str(place))
        elif parquet:
            loaded = datasets.load_dataset("parquet", data_files=_by_split(parquet))
        elif not place.exists() and is_hub_name(path):
            loaded = datasets.load_dataset(path, config, revision=revision)
        else:
            raise FileNotFoundError("there is nothing that datasets reads")
    except Exception as error:  # of files, of the network, of the hub: each library has its own
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"path={path}: {reason}; allowed: a parquet file, a folder of them or of save_to_disk, or OWNER/NAME where "
            "the hub is reached"
        ) from error
    if isinstance(loaded, datasets.Dataset):
        loaded = {"train": loaded}
    if split not in loaded:
        raise ValueError(f"path={path}: there is no split {split}; allowed: {', '.join(map(str, loaded))}")
    return loaded[split]


def _by_split(files: Sequence[Path]) -> dict[str, list[str]]:
    """As the hub names files: train-00000-of-00002.parquet; whatever begins otherwise is of train."""
    out: dict[str, list[str]] = {}
    for file in files:
        first = file.name.split("-")[0].split(".")[0]
        split = first if first in ("train", "test", "validation", "val") else "train"
        out.setdefault(split, []).append(os.fspath(file))
    return out


def _images(table: Any, image: str, path: str) -> Any:
    """The column of images alone, as bytes."""
    import datasets

    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    if image not in kinds:
        raise ValueError(f"path={path}: there is no column {image}; allowed for image: {', '.join(kinds)}")
    feature = table.features[image]
    if not isinstance(feature, datasets.Image) and not (isinstance(feature, dict) and "bytes" in feature):
        raise ValueError(f"path={path}: the column {image} is of kind {kinds[image]}; allowed is one of images")
    return table.select_columns([image]).cast_column(image, datasets.Image(decode=False))


def _told(table: Any, caption: str | None, template: str, path: str) -> list[tuple[str, ...]]:
    """The captions of each row."""
    import datasets

    columns = list(table.features)
    named = caption or next((name for name in _CAPTIONS if name in columns), None)
    if named not in columns:
        looked = named or " or ".join(_CAPTIONS)
        raise ValueError(f"path={path}: there is no column {looked}; allowed for caption: {', '.join(columns)}")
    values, feature = table[named], table.features[named]
    if isinstance(feature, datasets.ClassLabel):
        names = [(template.replace("{name}", name.replace("_", " ")),) for name in feature.names]
        return [names[value] if value is not None and value >= 0 else () for value in values]
    return [captions_of(value) for value in values]
