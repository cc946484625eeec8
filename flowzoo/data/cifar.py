"""`data=cifar10`: as torchvision reads it, with captions from the names of its classes."""

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cached_property
from hashlib import sha256

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10

from flowzoo.data.folder import TEMPLATE, check_template
from flowzoo.data.source import check_split
from flowzoo.paths import user_path
from flowzoo.sizes import pair


class Cifar10:
    """50,000 images to train on, 10,000 held out, 32 x 32; other sizes are resized as those of Folder.

    `path` is a folder with cifar-10-batches-py/ or cifar-10-python.tar.gz; None: the user's cache, to which it is
    downloaded. torchvision compares checksums of all files before it reads them.

    Raises:
        ValueError: an impossible value; the files are not there, are others, or cannot be downloaded.
    """

    channels = 3

    def __init__(
        self,
        split: str,
        path: str | None = None,
        image_size: int | Sequence[int] = 32,
        template: str = TEMPLATE,
        name: str = "cifar10",
    ) -> None:
        check_template(template)
        self.split, self.name, self.size = check_split(split), name, pair(image_size)
        data = _read(path, split)
        self._pixels, self._labels = data.data, data.targets
        self._captions = [template.replace("{name}", each) for each in data.classes]

    def __len__(self) -> int:
        return len(self._labels)

    @cached_property
    def fingerprint(self) -> str:
        """Covers size, pixels and captions."""
        digest = sha256(f"{self.size} {self._captions} {list(self._labels)}\n".encode())
        digest.update(np.ascontiguousarray(self._pixels))
        return digest.hexdigest()[:16]

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 [n, 3, H, W]."""
        pixels = self._pixels[np.asarray(indices, np.int64)]
        height, width = self.size
        if (height, width) != pixels.shape[1:3]:
            pixels = np.stack([_resized(each, height, width) for each in pixels])
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))

    def captions(self, index: int) -> tuple[str, ...]:
        return (self._captions[self._labels[index]],)

    def prompt(self, index: int) -> str:
        return self._captions[self._labels[index]]


def _read(path: str | None, split: str) -> CIFAR10:
    root = user_path(path or os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    root = root if path else root / "flowzoo" / "cifar10"
    there = (root / CIFAR10.base_folder).is_dir()
    packed = (root / CIFAR10.filename).is_file()
    wanted = f"a folder with {CIFAR10.base_folder}/ or {CIFAR10.filename} as data.source.path"
    if path and not there and not packed:
        raise ValueError(f"path={path}: there is neither {CIFAR10.base_folder}/ nor {CIFAR10.filename}")
    try:
        with redirect_stdout(io.StringIO()):
            if not there:
                root.mkdir(parents=True, exist_ok=True)
            return CIFAR10(root, train=split == "train", download=not there)
    except (OSError, RuntimeError) as error:  # no network, no permission, other checksums
        told = "is not what torchvision knows" if there or packed else "cannot be downloaded"
        reason = " ".join(str(error).split())
        raise ValueError(f"CIFAR-10 in {root} {told} ({reason}); allowed: {wanted}") from error


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h, w, 3] -> [H, W, 3], the largest centred part of that shape, antialiased."""
    h, w = pixels.shape[:2]
    across, down = min(w, h * width / height), min(h, w * height / width)
    left, top = (w - across) / 2, (h - down) / 2
    box = (left, top, left + across, top + down)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box))
