"""Tars as img2dataset writes them, made for tests."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes, **about: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in about.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def write(path: Path, samples: Sequence[Mapping[str, bytes]], first: int = 0) -> Path:
    """Samples {suffix: content}, numbered from `first`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(samples, first):
            for suffix, data in sample.items():
                add(tar, f"{number:09}.{suffix}", data)
    return path


def sample(i: int, suffix: str = "png", **more: Any) -> dict[str, bytes]:
    """Image, caption and json of number i."""
    about = {"key": f"{i:09}", "caption": f"picture {i}", "dense": [f"all of {i}", f"{i} in detail"], **more}
    kind = {"jpg": "JPEG", "webp": "WEBP"}.get(suffix, "PNG")
    return {suffix: picture(i, kind), "json": json.dumps(about).encode(), "txt": f"picture {i}\n".encode()}


def folder(path: Path, tars: int = 3, each: int = 40) -> Path:
    """`tars` tars of `each` samples in a folder; jpg, png and webp by turns."""
    for k in range(tars):
        content = [sample(i, ("jpg", "png", "webp")[i % 3]) for i in range(k * each, (k + 1) * each)]
        write(path / f"{k:05}.tar", content, k * each)
    return path
