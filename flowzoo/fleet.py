"""Worker processes of this one: started, told of signals, begun again where they are killed. The one choice of GPUs.

A worker is a fresh interpreter in a session of its own, so that a signal reaches it once, from here. It is handed a
function and its arguments when it starts. What it says afterwards its supervisor reads whenever it looks, and never
waits for. Where its supervisor is gone, it stops as after SIGTERM.
"""

import atexit
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

from flowzoo.imports import swiftly
from flowzoo.runs.files import saying
from flowzoo.runs.output import follow
from flowzoo.runs.signals import handled_by, stoppable

ATTEMPTS = 3  # at what a killed worker was doing; then it is what kills it
INTERRUPTED = 130
LOOK = 0.1  # seconds between two looks at the workers

# What a worker's interpreter runs: where modules lie is all that it has to know before it can be told anything else.
_BEGIN = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); import flowzoo.fleet; flowzoo.fleet._begin()"


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be told, one word a GPU that this process may use; without torch.

    As CUDA reads the variable: indices or UUIDs, of which an entry that names no GPU ends the list; repeated: none.
    """
    there = len([path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(map(str, range(there)))
    found: list[str] = []
    for word in (word.strip() for word in visible.split(",")):
        if not (word.startswith(("GPU-", "MIG-")) or (word.isdecimal() and int(word) < (there or sys.maxsize))):
            break
        found.append(word)
    return found if len(set(found)) == len(found) else []


class Worker:
    """A process, number `number` of its fleet."""

    def __init__(self, number: int, process: "subprocess.Popen[bytes]", alive: int, said: int) -> None:
        self.number, self.process = number, process
        self._alive, self._said, self._unread = alive, said, b""

    @property
    def code(self) -> int | None:
        """Its exit code once it has ended, -N where signal N killed it."""
        return self.process.poll()

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def heard(self) -> Iterator[Any]:
        """What it has said by `say` since the last call."""
        with suppress(BlockingIOError):
            while more := os.read(self._said, 1 << 16):
                self._unread += more
        while len(self._unread) >= 8 and len(self._unread) >= 8 + (length := int.from_bytes(self._unread[:8], "big")):
            message, self._unread = self._unread[8 : 8 + length], self._unread[8 + length :]
            yield pickle.loads(message)

    def go(self) -> None:
        """Lets it pass `await_go`."""
        with suppress(BrokenPipeError):
            os.write(self._alive, b"g")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        os.close(self._alive)
        os.close(self._said)


class Fleet:
    """Up to `size` workers at a time, with a GPU each where there are GPUs, which share the cores.

    For a `with` block, in which signals and the loss of this process's output are passed on to the workers. Who leaves
    it by an exception has them stop, and waits for that. `logs`: a folder in which worker k writes what it prints to
    <k>.log; without one it prints where this process does.
    """

    def __init__(self, size: int, logs: Path | None = None) -> None:
        self.size, self.logs = size, logs
        self.workers: list[Worker] = []
        self.received: list[int] = []  # signals
        self._within = ExitStack()

    def __enter__(self) -> Self:
        self._within.enter_context(handled_by(self._hear))
        return self

    def __exit__(self, *_: object) -> None:
        with self._within:
            if self.workers:
                self.stop()
            for worker in self.workers:
                worker.process.wait()
                worker.close()

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        for worker in self.workers:
            worker.send(_passed_on(number))

    def stop(self) -> None:
        """Asks all workers to save and stop."""
        self._hear(signal.SIGTERM, None)

    def start(self, number: int, function: Callable[..., object], *args: Any, gpu: int | None = None) -> Worker:
        """A worker that calls a function of a module, which is pickled by its name, and exits with the int it returns.

        Raises RunError where the system refuses it.

        `gpu` counts the GPUs that there are, from the first one again after the last; `number` by default.
        """
        with saying("cannot start a worker process"), ExitStack() as files:
            pipes = [os.fdopen(end, mode) for _ in range(2) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True)]
            alive_there, alive, said, said_there = [files.enter_context(end).fileno() for end in pipes]
            os.set_blocking(said, False)
            told = files.enter_context(tempfile.TemporaryFile())
            pickle.dump(sys.path, told)
            pickle.dump((function, args, alive_there, said_there), told)
            told.seek(0)
            log = None
            if self.logs is not None:
                self.logs.mkdir(exist_ok=True)
                log = files.enter_context(open(self.logs / f"{number}.log", "ab"))
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BEGIN],
                stdin=told,
                stdout=log,
                stderr=log,
                env=self._environment(number if gpu is None else gpu),
                pass_fds=(alive_there, said_there),
                start_new_session=True,
            )
            worker = Worker(number, process, os.dup(alive), os.dup(said))
        self.workers.append(worker)
        for received in self.received:  # while it was being started
            worker.send(_passed_on(received))
        return worker

    def _environment(self, gpu: int) -> dict[str, str]:
        env = dict(os.environ)
        if there := gpus():
            env["CUDA_VISIBLE_DEVICES"] = there[gpu % len(there)]
        # or each would use all of the cores
        env.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // max(1, self.size))))
        return env

    def work(
        self,
        function: Callable[..., object],
        shares: Sequence[tuple[Any, ...]],
        heard: Callable[[Worker, Any], None] = lambda worker, message: None,
        again: Callable[[Worker, int], bool] = lambda worker, deaths: deaths < ATTEMPTS,
        look: Callable[[], None] = lambda: None,
        gpu: int | None = None,
    ) -> list[int]:
        """Has worker k call `function(*shares[k])`, until all have ended. Returns their exit codes.

        A worker that somebody else asked to stop has the others stop as well. One that was killed, or that ended with
        another code than 0, 1 and 130, is started again where `again(worker, how often)` says so. `look` is called ten
        times a second. `gpu` as in `start`.
        """
        codes = [0] * len(shares)
        deaths: Counter[int] = Counter()
        for number, share in enumerate(shares):
            if self.received:
                break
            self.start(number, function, *share, gpu=gpu)
        while self.workers:
            ended = [worker for worker in self.workers if worker.code is not None]
            for worker in self.workers:
                for message in worker.heard():
                    heard(worker, message)
            for worker in ended:
                self.workers.remove(worker)
                worker.close()
                k = worker.number
                codes[k] = worker.process.returncode
                if codes[k] == INTERRUPTED and not self.received:
                    self.stop()
                elif codes[k] not in (0, 1, INTERRUPTED) and not self.received:
                    deaths[k] += 1
                    if again(worker, deaths[k]) and not self.received:
                        self.start(k, function, *shares[k], gpu=gpu)
            look()
            if not ended:
                time.sleep(LOOK)
        return codes


def _passed_on(number: int) -> int:
    return signal.SIGTERM if number == signal.SIGPIPE else number


# In a worker.

_said = -1
_may_go = threading.Event()


def say(message: object) -> None:
    """Tells the supervisor."""
    content = pickle.dumps(message)
    content = len(content).to_bytes(8, "big") + content
    with suppress(BrokenPipeError):  # it is gone, which is heard otherwise
        while content:
            content = content[os.write(_said, content) :]


def await_go() -> None:
    """Waits for the supervisor's `go`."""
    _may_go.wait()


def _begin() -> NoReturn:
    global _said
    ended = [1]
    atexit.register(_leave, ended)  # the first, so that whatever else is registered comes before it
    with swiftly():  # the function's module may import torch
        function, args, alive, _said = pickle.load(sys.stdin.buffer)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    follow()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what was printed survives a kill
    threading.Thread(target=_watch, args=(alive,), daemon=True).start()
    try:
        code = stoppable(function)(*args)
        ended[0] = code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        ended[0] = INTERRUPTED
    except SystemExit as error:
        ended[0] = error.code if isinstance(error.code, int) else 1
        raise
    sys.exit()


def _leave(ended: Sequence[int]) -> NoReturn:
    """Ends the process with this code and leaves torch and Lightning as they are: to take them apart takes seconds."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(ended[0])


def _watch(alive: int) -> None:
    """Hears what the supervisor lets this process do; the end of it is the supervisor's own."""
    while os.read(alive, 1):
        _may_go.set()
    os.kill(os.getpid(), signal.SIGTERM)
