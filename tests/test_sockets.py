"""Worker processes under a temporary folder whose path is too long for a Unix socket: they hung for ever."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flowzoo import sockets

LOADER = """
import torch
from flowzoo.data.loader import Batches
from flowzoo.data.shapes import Shapes
from flowzoo.encoders.text import TextEncoders
from flowzoo.encoders.words import WordEncoder
text = TextEncoders({"words": WordEncoder(length=4, dim=8)})
source = Shapes(split="train", image_size=16, size=64, seed=0)
batches = Batches(source, text, batch_size=8, seed=0, device="cpu", cache="none", workers=2)
stream = batches.iterate()
assert [next(stream).images.shape for _ in range(4)] == [(8, 3, 16, 16)] * 4
"""
MANAGER = """
from flowzoo.bench.processes import together
assert together(hasattr, [("no such attribute",)], [None]) == [False]
"""


@pytest.fixture
def short() -> Iterator[Path]:
    with TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize(("code", "length"), [(LOADER, 75), (LOADER, 76), (LOADER, 200), (MANAGER, 104)])
def test_processes_find_each_other_under_a_long_temporary_folder(short: Path, code: str, length: int) -> None:
    folder = short / ("x" * (length - len(str(short)) - 1))
    folder.mkdir()
    assert len(str(folder)) == length
    env = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_without_a_short_folder_this_is_said(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + "x" * 80)
    monkeypatch.setattr(sockets, "_SHORT", ())
    with pytest.raises(ValueError, match=r"TMPDIR=/tmp/x*: its path is too long for sockets; allowed are paths of 75"):
        sockets.keep_socket_paths_short()
