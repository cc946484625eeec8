"""Commands in processes that are forked from one which has imported torch, Lightning and flowzoo already.

To import them takes a fresh interpreter four seconds of a core. A prepared command is a process of its own in all that
tests look at: number, arguments, folder, environment, output, signals, end. What is about imports wants a fresh one.
"""

import atexit
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn, Self

from flowzoo.imports import swiftly

IMPORTED = ("flowzoo.stacks", "open_clip", "hydra.main", "flowzoo.runs.config", "flowzoo.training.processes")
IGNORABLE = (signal.SIGINT, signal.SIGHUP)  # by who starts it; as after nohup


class Command:
    """A running command; what is here of `subprocess.Popen` is as there."""

    def __init__(self, pid: int, ended: socket.socket, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        if self.returncode is None:
            with suppress(BlockingIOError):
                self._end(self._ended.recv(16, socket.MSG_DONTWAIT))
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutError."""
        if self.returncode is None:
            self._ended.settimeout(timeout)
            self._end(self._ended.recv(16))
        assert self.returncode is not None
        return self.returncode

    def _end(self, status: bytes) -> None:
        self.returncode = os.waitstatus_to_exitcode(int(status))
        self._ended.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Prepared:
    """The process that commands are forked from, for a `with` block."""

    def __enter__(self) -> Self:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.shutdown(socket.SHUT_RDWR)  # also where a forked loader process still holds it
        self._channel.close()
        self._process.wait()

    def start(
        self,
        words: Sequence[object],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
        start_new_session: bool = False,
    ) -> Command:
        """What follows `python`: `-m module`, `-c code` or a script, and its arguments."""
        request = {
            "words": [str(word) for word in words],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "ignored": [number for number in IGNORABLE if signal.getsignal(number) is signal.SIG_IGN],
            "session": start_new_session,
        }
        ended, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened, read = [theirs.fileno(), os.open(os.devnull, os.O_RDONLY)], []
        for stream in (stdout, stderr):
            if stream == subprocess.PIPE:
                reader, writer = os.pipe()
                read.append(open(reader))  # noqa: SIM115  for the life of the command
                opened.append(writer)
            else:
                read.append(None)
                null = stream == subprocess.DEVNULL
                opened.append(os.open(os.devnull, os.O_WRONLY) if null else os.dup(_descriptor(stream)))
        socket.send_fds(self._channel, [pickle.dumps(request)], opened)
        for descriptor in opened[1:]:
            os.close(descriptor)
        theirs.close()
        return Command(int(ended.recv(16)), ended, *read)

    def run(self, words: Sequence[object], **how: Any) -> "subprocess.CompletedProcess[str]":
        """As `start`; waits for its end and returns it with what it wrote."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            code = self.start(words, stdout=out, stderr=err, **how).wait(1200)
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(list(words), code, out.read(), err.read())


def _descriptor(stream: int | IO[Any]) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


# In the process that commands are forked from.


def _serve(channel: socket.socket) -> list[str]:
    """Returns in the process of each command, with its words."""
    while True:
        message, opened, *_ = socket.recv_fds(channel, 1 << 20, 4)
        if not message:
            os._exit(0)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if not (pid := os.fork()):
                channel.close()
                return _become(pickle.loads(message), opened)
            with socket.socket(fileno=opened[0]) as told:
                told.send(b"%d" % pid)
                for descriptor in (*opened[1:], channel.fileno()):
                    os.close(descriptor)
                told.send(b"%d" % os.waitpid(pid, 0)[1])
            os._exit(0)
        for descriptor in opened:
            os.close(descriptor)


def _become(request: Mapping[str, Any], opened: Sequence[int]) -> list[str]:
    if request["session"]:
        os.setsid()
    for number, descriptor in enumerate(opened[1:]):
        os.dup2(descriptor, number)
    for descriptor in opened:
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in request["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    words: list[str] = request["words"]
    return words


def _run(words: Sequence[str]) -> None:
    """As Python itself does with these words."""
    first, *rest = words
    if first == "-m":
        sys.path[0], sys.argv = str(Path.cwd()), rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[0], sys.argv = "", ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0], sys.argv = str(Path(first).parent), list(words)
        runpy.run_path(first, run_name="__main__")


def _end(words: Sequence[str]) -> NoReturn:
    """Runs the command and ends as Python does, but leaves modules as they are: to take them apart takes seconds."""
    code: object = 0
    try:
        _run(words)
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who has it started
    with socket.socket(fileno=int(sys.argv[1])) as own:
        with swiftly():
            for name in IMPORTED:
                import_module(name)
        its_words = _serve(own)
    _end(its_words)
