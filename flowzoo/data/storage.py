"""Files that are read at random: those of this machine, and what fsspec reads by a URL such as s3://."""

import os
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import BinaryIO

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from flowzoo.paths import user_path
from flowzoo.runs.files import RunError

_BLOCK = 2**23  # bytes that a stream from elsewhere asks for at once
_ATTEMPTS = 4  # at reading from elsewhere; between them 1, 2 and 4 seconds
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_url(path: str) -> bool:
    return "://" in path


def expanded(pattern: str) -> list[str]:
    """`{000..012}` as all numbers from the first to the last, with as many digits; several multiply."""
    pieces = _RANGE.split(pattern)
    counted = [
        [str(k).zfill(len(first)) for k in range(int(first), int(last) + 1)]
        for first, last in zip(pieces[1::3], pieces[2::3], strict=True)
    ]
    between = pieces[::3]
    return ["".join(a + b for a, b in zip(between, (*chosen, ""), strict=True)) for chosen in product(*counted)]


class Store:
    """Where the files lie that a path names: a folder, a file, a pattern with * or {000..012}, or such a URL.

    `files` are their names there, sorted: those of a folder that end with `suffix`. It goes to other processes, each of
    which then has a connection of its own.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a protocol that fsspec does not know, or whose package is not installed.
    """

    def __init__(self, path: str, suffix: str) -> None:
        path = path if is_url(path) else str(user_path(path))
        names = expanded(path)
        try:
            self._fs: AbstractFileSystem = url_to_fs(names[0])[0]
            roots = [str(self._fs._strip_protocol(name)) for name in names]
        except (ImportError, ValueError) as error:
            raise ValueError(f"path={path}: {error}") from None
        self.is_local = "file" in _protocols(self._fs)
        self._pid = os.getpid()
        self.files = sorted({file for root in roots for file in self._below(root, suffix)})
        if not self.files:
            raise FileNotFoundError(f"no files {suffix} at {path}")

    def _below(self, root: str, suffix: str) -> Sequence[str]:
        try:
            if "*" in root or "?" in root or "[" in root:
                return [str(f) for f in self._fs.glob(root)]
            if self._fs.isdir(root):
                return [str(f) for f in self._fs.ls(root, detail=False) if str(f).endswith(suffix)]
            if not self._fs.exists(root):
                raise FileNotFoundError(f"no such file or folder: {self.url(root)}")
            return [root]
        except FileNotFoundError:
            raise
        except Exception as error:  # of a network: each of fsspec's packages has its own
            raise RunError(f"{self.url(root)} cannot be listed: {_line(error)}") from error

    def url(self, file: str) -> str:
        """As a user would write it."""
        return file if self.is_local else str(self._fs.unstrip_protocol(file))

    def stamp(self, file: str) -> str:
        """Changes when the file does. Raises RunError."""
        if self.is_local:
            status = os.stat(file)
            return f"{status.st_size} {status.st_mtime_ns}"
        try:
            return str(self.fs.ukey(file))
        except Exception as error:
            raise RunError(f"{self.url(file)} cannot be read: {_line(error)}") from error

    def open(self, file: str) -> BinaryIO:
        """The file from its beginning; it can seek. Raises RunError."""
        try:
            return open(file, "rb") if self.is_local else self.fs.open(file, "rb", block_size=_BLOCK)
        except Exception as error:
            raise RunError(f"{self.url(file)} cannot be read: {_line(error)}") from error

    def read(self, file: str, start: int, size: int) -> bytes:
        """Some bytes of a file of this machine; from any thread and process. Raises OSError."""
        opened = _opened(file, os.getpid())  # held while it is read: other threads may drop it from the cache
        return os.pread(opened.fileno(), size, start)

    def read_all(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """The bytes of (file, start, size) from elsewhere, asked for at once. Raises RunError where none come."""
        files, starts = [file for file, _, _ in ranges], [start for _, start, _ in ranges]
        ends = [start + size for _, start, size in ranges]
        for attempt in range(_ATTEMPTS):
            try:
                return self.fs.cat_ranges(files, starts, ends, on_error="raise")
            except Exception as error:  # as in _below
                if attempt + 1 == _ATTEMPTS:
                    raise RunError(f"{self.url(files[0])} or another cannot be read: {_line(error)}") from error
                time.sleep(2**attempt)
        raise AssertionError

    @property
    def fs(self) -> AbstractFileSystem:
        """This process's own: what has connections is not to be shared with a parent."""
        if self._pid != os.getpid():
            self._fs, self._pid = type(self._fs)(*self._fs.storage_args, **self._fs.storage_options), os.getpid()
        return self._fs


@lru_cache(maxsize=128)
def _opened(file: str, process: int) -> BinaryIO:
    """A file that is closed when nobody uses it any longer."""
    return open(file, "rb")


def _protocols(fs: AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
