"""What `python -m flowzoo.encode` writes and `data=latents` reads: latents and text embeddings in shards.

A folder holds, all of it written whole or not at all:

plan.json               what is encoded with what; the first to be written
autoencoder.safetensors statistics of the latents, and what was fitted (flowzoo/autoencoders/kept.py)
train-00000.safetensors latents [n, c, h, w] less their mean, in units of the autoencoder, and their captions
val-00000.safetensors   uint8 images [n, C, H, W] with prompts and captions, since scores are made of images
captions.safetensors    each different caption of train once, and which captions image i has
text-00000.safetensors  of each text encoder tokens [n, L, D], less positions that are empty in all n, and pooled [n, P]
index.json              fingerprints, and size and sha256 of each shard; the last to be written

A shard's header says of which plan it is, and the sha256 of its tensors.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from flowzoo.data.source import check_split
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.paths import user_path
from flowzoo.runs.files import Refused, RunError, replace

PLAN, INDEX, CAPTIONS, FORMAT = "plan.json", "index.json", "captions.safetensors", 1
DTYPES = {"float16": torch.float16, "float32": torch.float32}  # of latents; text is kept in half precision always


def shard(kind: str, number: int) -> str:
    """The name of a file; `kind` is train, val or text."""
    return f"{kind}-{number:05}.safetensors"


def write_shard(path: Path, tensors: Mapping[str, np.ndarray], plan: str) -> None:
    """Raises RunError for a full disk."""
    kept = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    # one entry, since safetensors writes several in any order
    replace(path, save(kept, {"about": json.dumps({"plan": plan, "sha256": _digest(kept)})}))


def header(path: Path, plan: str) -> str | None:
    """The sha256 of a shard's tensors as its header says; None where it is not whole or of another plan."""
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["about"])
    except (OSError, SafetensorError, LookupError, ValueError):
        return None
    return about.get("sha256") if about.get("plan") == plan else None


def is_sound(path: Path, plan: str) -> bool:
    """Whether all of a shard is as it was written; reads it."""
    if (told := header(path, plan)) is None:
        return False
    with safe_open(path, framework="np") as file:
        return _digest({name: file.get_tensor(name) for name in file.keys()}) == told  # noqa: SIM118 (not a dict)


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
    digest = sha256()
    for name in sorted(tensors):
        x = tensors[name]
        digest.update(f"{name} {x.dtype} {x.shape}\n".encode())
        digest.update(x.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def packed(captions: Iterable[Sequence[str]]) -> dict[str, np.ndarray]:
    """The captions of some images as tensors: UTF-8, where each ends, how many an image has."""
    texts, ends, counts = bytearray(), [], []
    for each in captions:
        counts.append(len(each))
        for caption in each:
            texts += caption.encode()
            ends.append(len(texts))
    ints = {"ends": np.array(ends, np.int64), "counts": np.array(counts, np.int64)}
    return {"texts": np.frombuffer(bytes(texts), np.uint8), **ints}


def unpacked(path: Path) -> list[list[str]]:
    """The captions of each image of a shard."""
    with safe_open(path, framework="np") as file:
        texts, ends, counts = (file.get_tensor(name) for name in ("texts", "ends", "counts"))
    told, begin = texts.tobytes(), 0
    each = []
    for end in ends.tolist():
        each.append(told[begin:end].decode())
        begin = end
    stops = counts.cumsum().tolist()
    return [each[stop - n : stop] for stop, n in zip(stops, counts.tolist(), strict=True)]


class EncodedSet:
    """One split of what `python -m flowzoo.encode` wrote: latents and text to train on, images to be judged by.

    The images of `train` are gone: what asks for them is refused.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it is not whole.
    """

    def __init__(self, split: str, path: str, name: str = "latents") -> None:
        self.split, self.name, self.path = check_split(split), name, user_path(path).absolute()
        if not self.path.is_dir():
            raise FileNotFoundError(f"no such folder: {path}")
        if not (self.path / INDEX).is_file():
            begun = "its encoding has not ended" if (self.path / PLAN).is_file() else "nothing was encoded there"
            raise ValueError(f"path={path}: there is no {INDEX}, {begun}; allowed: out= of python -m flowzoo.encode")
        about: dict[str, Any] = json.loads((self.path / INDEX).read_text())
        if about.get("format") != FORMAT:
            raise ValueError(f"path={path}: {INDEX} is of format {about.get('format')}; allowed is {FORMAT}")
        for file, told in about["shards"].items():
            there = (self.path / file).stat().st_size if (self.path / file).is_file() else None
            if there != told["bytes"]:
                found = "is missing" if there is None else f"has {there} bytes, not {told['bytes']}"
                raise ValueError(f"path={path}: {file} {found}; the command that made it makes it anew")
            if header(self.path / file, about["plan"]) != told["sha256"]:
                raise ValueError(f"path={path}: {file} is another file; the command that made it makes it anew")
        self._about, self._per = about, int(about["images_per_shard"])
        self.size: tuple[int, int] = (about["size"][0], about["size"][1])
        self.channels: int = about["channels"]
        self.autoencoder = self.path / "autoencoder.safetensors"
        self._captions = None
        if split == "train":
            self._captions = _Captions(self.path / CAPTIONS, self._mapped(CAPTIONS, "texts"))
        if split == "val":
            numbers = range(-(-about["val"] // self._per))
            self._told = [told for k in numbers for told in unpacked(self.path / shard("val", k))]

    def __len__(self) -> int:
        return int(self._about[self.split])

    @property
    def fingerprint(self) -> str:
        """Of train it covers the images, the autoencoder with its statistics, the encoders of the text, the precision.

        Of val it is that of the images.
        """
        return str(self._about["fingerprint"] if self.split == "train" else self._about["source"]["val"])

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, C, H, W] of val. Raises RunError for train."""
        if self.split == "train":
            raise RunError(
                f"data {self.name}: {self.path} holds latents of its training images, not the images themselves; "
                "allowed is the data that it was encoded from"
            )
        return self._rows("val", "images", indices)

    def latents(self, indices: Sequence[int]) -> Tensor:
        """[n, c, h, w] in units of the autoencoder, less their mean; float16 or float32."""
        return torch.from_numpy(self._rows("train", "latents", indices))

    def captions(self, index: int) -> tuple[str, ...]:
        """The alternatives that training draws from."""
        if self._captions is None:
            return tuple(self._told[index][1:])
        return tuple(map(self._captions.text, self._captions.of(index).tolist()))

    def prompt(self, index: int) -> str:
        """The caption under which evaluation samples."""
        return self._told[index][0] if self._captions is None else self.captions(index)[0]

    def caption_rows(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Numbers of the captions of all images in a row, how many each image has, and how many different ones are."""
        assert self._captions is not None
        return self._captions.rows, self._captions.counts, len(self._captions.ends)

    def caption_numbers(self, indices: Sequence[int], draws: Sequence[int]) -> list[int]:
        """Of each image the number of its caption `draw mod alternatives`."""
        assert self._captions is not None
        each = zip(map(self._captions.of, indices), draws, strict=True)
        return [int(rows[draw % len(rows)]) for rows, draw in each]

    def text(self, encoders: TextEncoders, rows: Sequence[int]) -> Text:
        """Of captions by number, float16 on the CPU. Raises Refused where it was encoded by others than `encoders`."""
        names, per = self.names_of(encoders), int(self._about["captions_per_shard"])
        tokens, pooled = [], []
        each = zip(names, encoders.spec.lengths, encoders.spec.dims, encoders.spec.pooled, strict=True)
        for name, length, dim, width in each:
            kept, vectors = np.zeros((len(rows), length, dim), np.float16), np.zeros((len(rows), width), np.float16)
            for i, row in enumerate(rows):
                k, place = divmod(int(row), per)
                found = self._mapped(shard("text", k), f"tokens.{name}")[place]
                kept[i, : len(found)] = found
                vectors[i] = self._mapped(shard("text", k), f"pooled.{name}")[place]
            tokens.append(torch.from_numpy(kept))
            pooled.append(torch.from_numpy(vectors))
        return Text(tuple(tokens), tuple(pooled))

    def names_of(self, encoders: TextEncoders) -> list[str]:
        """What the encoders of a run are called here, told by their fingerprints. Raises Refused."""
        kept = {told["fingerprint"]: name for name, told in self._about["text"].items()}
        for name, encoder in encoders.encoders.items():
            if encoder.fingerprint not in kept:
                there = ", ".join(f"{name} ({fingerprint[:8]})" for fingerprint, name in kept.items())
                raise Refused(
                    f"data {self.name}: {self.path} has no text of encoder {name} ({encoder.fingerprint[:8]}); "
                    f"allowed: text= of those that it was encoded by, {there}"
                )
        return [kept[encoder.fingerprint] for encoder in encoders.encoders.values()]

    def about(self) -> list[tuple[str, str]]:
        """What people should know before they train on this, as pairs of a word and a text."""
        if self.split == "val":
            return []
        a = self._about
        latents = f"{' x '.join(map(str, a['latent']))} in {a['dtype']}, of {a['source']['name']}"
        return [("latents", latents), ("text", ", ".join(a["text"]))]

    def _rows(self, kind: str, name: str, indices: Sequence[int]) -> np.ndarray:
        each = (divmod(int(i), self._per) for i in indices)
        return np.stack([self._mapped(shard(kind, k), name)[row] for k, row in each])

    def _mapped(self, file: str, name: str) -> np.ndarray:
        return _mapped(str(self.path / file), name, self._about["shards"][file]["sha256"])


class _Captions:
    """captions.safetensors: the texts stay on the disk."""

    def __init__(self, path: Path, texts: np.ndarray) -> None:
        self._texts = texts
        with safe_open(path, framework="np") as file:
            self.ends, self.rows, self.counts = (file.get_tensor(name) for name in ("ends", "rows", "each"))
        self._first = self.counts.cumsum() - self.counts

    def of(self, index: int) -> np.ndarray:
        """The numbers of an image's captions."""
        return self.rows[self._first[index] : self._first[index] + self.counts[index]]

    def text(self, row: int) -> str:
        begin = int(self.ends[row - 1]) if row else 0
        return self._texts[begin : int(self.ends[row])].tobytes().decode()


@lru_cache(maxsize=4096)
def _mapped(path: str, name: str, digest: str) -> np.ndarray:
    """A tensor of a shard with this content, mapped into memory: rows are read from the disk as they are asked for."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        told = json.loads(file.read(length))[name]
    dtype = {"F16": np.float16, "F32": np.float32, "U8": np.uint8}[told["dtype"]]
    begin, _ = told["data_offsets"]
    if 0 in told["shape"]:
        return np.empty(told["shape"], dtype)
    return np.memmap(path, dtype, "r", 8 + length + begin, tuple(told["shape"]))
