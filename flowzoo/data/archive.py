"""Where the files of an image set lie: a directory, or a zip whose entries are stored, not compressed."""

import mmap
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, order=True, slots=True)
class File:
    folder: str  # the directory it lies in: its class
    name: str  # from the root, with /
    size: int  # bytes
    crc: int = 0  # zip only
    header: int = 0  # zip only: offset of the local header


class Archive(Protocol):
    path: Path
    files: list[File]  # the images, sorted by class, then name

    def read(self, file: File) -> bytes:
        """The file's content; from any thread and process."""

    def crc(self, file: File) -> int:
        """CRC-32 of the content."""


def _image(name: str) -> bool:
    parts = name.split("/")
    # macOS puts files of its own beside images: __MACOSX/ and ._name.
    return (
        len(parts) > 1 and name.lower().endswith(SUFFIXES) and not any(p.startswith((".", "__MACOSX")) for p in parts)
    )


class Directory:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = []
        for root, _, names in os.walk(path, followlinks=True):
            folder = Path(root).relative_to(path).as_posix()
            for name in names:
                if _image(f"{folder}/{name}") and folder != ".":
                    size = os.stat(os.path.join(root, name)).st_size
                    self.files.append(File(folder.rpartition("/")[2], f"{folder}/{name}", size))
        self.files.sort()

    def read(self, file: File) -> bytes:
        return (self.path / file.name).read_bytes()

    def crc(self, file: File) -> int:
        return zlib.crc32(self.read(file))


class StoredZip:
    """Entries are slices of the file, mapped into memory once a process: no seek, no lock, any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        try:
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir() and _image(entry.filename)]
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is neither a directory nor a readable zip: {error}") from error
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise ValueError(
                    f"{path} holds compressed or encrypted entries ({entry.filename}), which cannot be read at random; "
                    "store them: unzip it and run `zip -0 -r images.zip .` inside the folder"
                )
        self.files = sorted(
            File(e.filename.split("/")[-2], e.filename, e.file_size, e.CRC, e.header_offset) for e in entries
        )

    def read(self, file: File) -> bytes:
        """Raises ValueError where the content is not what the zip's directory says."""
        if self._map is None:
            with open(self.path, "rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        # The local header has 30 bytes, then the name and an extra field, whose lengths stand at 26 and 28.
        name, extra = struct.unpack_from("<HH", self._map, file.header + 26)
        start = file.header + 30 + name + extra
        data = self._map[start : start + file.size]
        if zlib.crc32(data) != file.crc:
            raise ValueError("its CRC-32 is not the one in the zip's directory")
        return data

    def crc(self, file: File) -> int:
        return file.crc

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}
