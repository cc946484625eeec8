"""Standard output and error that notice when nobody reads them any more, as after `| head -1` or a closed terminal."""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from flowzoo.runs.files import DISK
from flowzoo.runs.signals import lose_output

LOST = (errno.EPIPE, errno.EIO)  # a pipe without a reader, a terminal that is gone


def follow() -> None:
    """From now on the loss of this process's output asks it to stop, once, and nothing fails by writing.

    Output that was closed from the start is not missed.
    """
    sys.stdout = _followed(sys.stdout, 1)
    sys.stderr = _followed(sys.stderr, 2)


def command(main: Callable[[], int]) -> NoReturn:
    """Exits with the code of a command. One whose output nobody reads ends quietly, with 141 as by SIGPIPE.

    One whose output goes to a full disk says so and ends with 1.
    """
    follow()
    try:
        code = main()
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in DISK or error.filename is not None:
            raise
        _lead_nowhere(1)  # what is left of it is written once more when Python ends
        sys.exit(f"cannot write the output: {error.strerror}")
    sys.exit(code)


class _Followed(io.FileIO):
    """A file descriptor that leads nowhere once it is lost."""

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in LOST:
                raise
        _lead_nowhere(self.fileno())
        lose_output()
        return memoryview(data).nbytes


def _followed(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        _lead_nowhere(descriptor)  # or the next file that is opened would be taken for the output
        return io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), write_through=True)
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    raw: Any = _Followed(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if isinstance(stream.buffer, io.RawIOBase) else io.BufferedWriter(raw),  # PYTHONUNBUFFERED
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere == descriptor:
        os.set_inheritable(nowhere, True)
    else:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
