"""The files of an image set: those of a directory, or of a zip."""

import io
import mmap
import os
import stat
import struct
import zipfile
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from flowzoo.data.passed import Passed

# What other programs leave beside images: macOS, Windows, network disks. Names that begin with a dot are theirs too.
_SYSTEM = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
_SYSTEM |= {"thumbs.db", "ehthumbs.db", "desktop.ini"}
_BY_SYSTEM = "left by other programs"


@dataclass(frozen=True, order=True, slots=True)
class File:
    folder: str  # the directory it lies in, without those above; empty at the top
    name: str  # from the top, with /
    size: int  # bytes
    # Of a zip alone.
    crc: int = 0
    header: int = 0  # offset of the local header
    packed: int = 0  # bytes in the zip
    deflated: bool = False


class Archive(Protocol):
    path: Path
    files: list[File]  # sorted by folder, then name; what other programs left is not among them
    passed: Passed

    def read(self, file: File) -> bytes:
        """The file's content; from any thread and process. Raises OSError, ValueError or zlib.error."""

    def open(self, file: File) -> BinaryIO:
        """The file's content as a stream, of which a directory reads no more than is asked for. Raises as `read`."""

    def crc(self, file: File) -> int:
        """CRC-32 of the content."""


def open_archive(path: Path) -> Archive:
    """Raises FileNotFoundError for a missing path, ValueError for one that is neither a directory nor a zip."""
    if not path.exists():
        raise FileNotFoundError(f"no such directory or zip: {path}")
    return Directory(path) if path.is_dir() else Zip(path)


def _file(name: str, size: int, **zipped: Any) -> File:
    return File(name.rpartition("/")[0].rpartition("/")[2], name, size, **zipped)


def is_text(words: str) -> bool:
    """Whether UTF-8 can write it: half a surrogate pair, or a byte that was no text, it cannot."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM


def _entry_name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.replace("\\", "/")  # as some programs on Windows write it


class Directory:
    """Links are followed, but every directory is read once, by its own name where it has one below `path`.

    A link that leads nowhere is a file that cannot be read. Raises ValueError for a directory that cannot be listed and
    for a name that is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed = Passed()
        self.files: list[File] = []
        seen: set[tuple[int, int]] = set()
        found, links = deque([""]), deque[str]()
        while found or links:
            folder = found.popleft() if found else links.popleft()
            status = os.stat(path / folder)
            if (status.st_dev, status.st_ino) in seen:
                self.passed.add("links to folders that are read already", folder)
                continue
            seen.add((status.st_dev, status.st_ino))
            self._list(folder, found, links)
        self.files.sort()

    def _list(self, folder: str, found: deque[str], links: deque[str]) -> None:
        try:
            with os.scandir(self.path / folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(f"the folder {self.path / folder} cannot be listed: {error.strerror}") from error
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if _is_system(entry.name):
                self.passed.add(_BY_SYSTEM, name)
                continue
            if not is_text(entry.name):
                raise ValueError(f"{self.path} holds {name!r}, whose name is not UTF-8; allowed: rename it")
            try:
                mode, size = (status := os.stat(entry.path)).st_mode, status.st_size
            except OSError:  # a link that leads nowhere, or in a circle
                mode, size = stat.S_IFREG, 0
            if stat.S_ISDIR(mode):
                (links if entry.is_symlink() else found).append(name)
            elif stat.S_ISREG(mode):
                self.files.append(_file(name, size))
            else:
                self.passed.add("neither files nor folders", name)

    def read(self, file: File) -> bytes:
        return (self.path / file.name).read_bytes()

    def open(self, file: File) -> BinaryIO:
        return open(self.path / file.name, "rb")

    def crc(self, file: File) -> int:
        return zlib.crc32(self.read(file))


class Zip:
    """Entries are slices of the file, mapped into memory once a process: no seek, no lock, any number of readers.

    Raises ValueError where the file is no zip, or an entry is encrypted or neither stored nor deflated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed = Passed()
        self._map: mmap.mmap | None = None
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is neither a directory nor a readable zip: {error}") from error
        self.files = []
        last = {_entry_name(entry): entry for entry in entries}  # as programs that unpack do, one name once
        for entry in entries:
            name = _entry_name(entry)
            if last[name] is not entry:
                self.passed.add("entries that a later one of the same name replaces", name)
                continue
            if any(map(_is_system, name.split("/"))):
                self.passed.add(_BY_SYSTEM, name)
                continue
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
                raise ValueError(
                    f"{path} holds {name} encrypted or in an uncommon compression; allowed: entries as `zip -r` "
                    "writes them"
                )
            zipped = {"crc": entry.CRC, "header": entry.header_offset, "packed": entry.compress_size}
            deflated = entry.compress_type == zipfile.ZIP_DEFLATED
            self.files.append(_file(name, entry.file_size, deflated=deflated, **zipped))
        self.files.sort()

    def read(self, file: File) -> bytes:
        if self._map is None:
            with open(self.path, "rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        # The local header has 30 bytes, then the name and an extra field, whose lengths stand at 26 and 28.
        name, extra = struct.unpack_from("<HH", self._map, file.header + 26)
        start = file.header + 30 + name + extra
        data = self._map[start : start + file.packed]
        if file.deflated:
            data = zlib.decompress(data, wbits=-zlib.MAX_WBITS, bufsize=max(1, file.size))
        if zlib.crc32(data) != file.crc:
            raise ValueError("its CRC-32 is not the one in the zip's directory")
        return data

    def open(self, file: File) -> BinaryIO:
        return io.BytesIO(self.read(file))

    def crc(self, file: File) -> int:
        return file.crc

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}
