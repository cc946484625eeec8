"""Files that are whole or not there, and what the system refuses as one clear line."""

import csv
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from flowzoo.runs.signals import is_interruption

os.umask(_UMASK := os.umask(0))  # it cannot be asked for otherwise

# What the system refuses that no program can help.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class RunError(Exception):
    """A run folder cannot be read or written; the message is for the user."""


class Refused(RunError):
    """A user's mistake that is found before a run begins: nothing is written of the run."""


def regular(path: str, flags: int) -> int:
    """An opener for `open` that refuses pipes and devices, whose reader might wait for ever. Raises OSError."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # `open` itself refuses a folder
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises OSError, also for a pipe or a device."""
    with open(path, "rb", opener=regular) as file:
        return file.read()


def replace(path: Path, content: str | bytes) -> None:
    """Replaces a file. Raises RunError.

    Written beside its name, flushed to the disk and renamed: whoever reads sees the old content or the new one, whole,
    whenever the writer dies.
    """
    with _beside(path, content) as beside:
        os.replace(beside, path)


def create(path: Path, content: str) -> None:
    """Writes a file where there is none; of several that try at once the first one does. Raises RunError."""
    with _beside(path, content) as beside:
        with suppress(FileExistsError):
            os.link(beside, path)
        beside.unlink()


@contextmanager
def _beside(path: Path, content: str | bytes) -> Iterator[Path]:
    """The content in a file of its own, on the disk, which is gone after an error."""
    beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    with saying(f"cannot write {path}"):
        try:
            with open(beside, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
                file.flush()
                os.fsync(file.fileno())
            yield beside
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


def check_output(key: str, given: str, path: Path, kind: str = "PNG") -> None:
    """Raises ValueError where no file of this kind can be written to `path`, which `key` names as `given`."""
    if given.endswith("/") or path.is_dir():
        raise ValueError(f"{key}={given}: this is a folder; allowed is the name of a {kind} file")
    if path.suffix.lower() != (suffix := f".{kind.lower()}"):
        raise ValueError(f"{key}={given}: allowed is the name of a {kind} file, which ends in {suffix}")
    check_place(key, given, path)


def check_place(key: str, given: str, path: Path) -> None:
    """Raises ValueError where neither a file nor a folder can be made or changed at `path`."""
    nearest = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not nearest.is_dir():
        raise ValueError(f"{key}={given}: {nearest} is no folder; allowed is a file in a folder")
    if not os.access(path if path.exists() else nearest, os.W_OK):
        raise ValueError(f"{key}={given}: no permission to write there")


def tell(program: str, complaints: Iterable[str]) -> int:
    """Prints what cannot be read on stderr. Returns the exit code of a command that went on without it: 1, else 0."""
    lines = list(complaints)
    for line in lines:
        print(f"{program}: {line}", file=sys.stderr)
    return 1 if lines else 0


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write` fills a file beside `path`, which is then renamed: a reader sees the old file or the new one, whole.

    Raises RunError for a full disk, and KeyboardInterrupt where one interrupts `write`, whatever that makes of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with saying(f"cannot write {path}"):
        try:
            write(beside)
            share(beside)
            with open(beside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException as error:
            beside.unlink(missing_ok=True)  # a full disk needs the space, and nobody reads half a checkpoint
            if isinstance(error, Exception) and is_interruption(error):  # torch.save complains of half a file
                raise KeyboardInterrupt from error
            raise


def share(path: Path) -> None:
    """Gives a file the permissions that `open` gives: safetensors writes files that nobody else can read."""
    path.chmod(0o666 & ~_UMASK)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """A CSV file whose lines end with \\n; None is an empty cell."""
    out: list[str] = []

    class Lines:
        def write(self, line: str) -> None:
            out.append(line.removesuffix("\r\n") + "\n")

    csv.writer(Lines()).writerows(rows)  # before Python 3.13 only what may end a line is quoted, so \r\n quotes both
    return "".join(out)


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Turns the system's refusals (full disk, no permission) into one clear message."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch raises the latter
        if (refusal := error if isinstance(error, OSError) else _refusal(error)) is None:
            raise
        raise RunError(f"{what}: {refusal.strerror or refusal}") from refusal


def explained(error: Exception) -> Exception:
    """A user's mistake or a full disk, from wherever it came, as RunError; anything else as it is.

    What an object's constructor refuses comes wrapped by Hydra.
    """
    from hydra.errors import InstantiationException  # half a second, which commands that only read files do without

    if isinstance(error, RunError):
        return error
    cause = error.__cause__
    if isinstance(error, InstantiationException) and isinstance(cause, ValueError | OSError):
        return _told(str(cause), cause)
    refusal = error if isinstance(error, PermissionError) else _refusal(error)
    if refusal is not None:
        return _told(f"{refusal.strerror}: {refusal.filename or 'nothing more can be written'}", refusal)
    return error


def _refusal(error: BaseException) -> OSError | None:
    """The full disk, if any, behind an error."""
    link: BaseException | None = error
    while link is not None and not (isinstance(link, OSError) and link.errno in DISK):
        link = link.__cause__ or link.__context__
    return link


def _told(words: str, cause: BaseException) -> RunError:
    told = RunError(words)
    told.__cause__ = cause
    return told
