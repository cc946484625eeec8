"""Worker processes that do next to nothing: what they are given, what they say, and how they end."""

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowzoo import fleet as module
from flowzoo.fleet import ATTEMPTS, INTERRUPTED, Fleet, Worker, await_go, gpus, say

SETTINGS = [
    (None, ["0", "1", "2", "3"]),
    ("", []),
    ("-1", []),
    ("NoDevFiles", []),
    ("2", ["2"]),
    ("3,1", ["3", "1"]),
    (" 3, 1 ", ["3", "1"]),
    ("0,-1,1", ["0"]),
    ("0,7,1", ["0"]),
    ("1,1", []),
    ("GPU-8932f937,GPU-45", ["GPU-8932f937", "GPU-45"]),
    ("MIG-GPU-89/0/0", ["MIG-GPU-89/0/0"]),
]


@pytest.mark.parametrize(("visible", "expected"), SETTINGS)
def test_gpus_are_those_that_cuda_would_show(
    visible: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    four = [Path(f"/dev/nvidia{name}") for name in ("0", "1", "2", "3", "ctl", "-uvm", "-modeset")]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: four)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == expected


def about_itself(word: str) -> int:
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    say((word, os.getsid(0) == os.getpid(), *map(os.environ.get, names)))
    print("a line of", word)
    return 0


def test_each_has_a_session_a_gpu_and_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    said: dict[int, object] = {}
    with Fleet(3, tmp_path / "logs") as fleet:
        codes = fleet.work(about_itself, [("x",), ("y",), ("z",)], heard=lambda w, m: said.update({w.number: m}))
    assert codes == [0, 0, 0]
    expected = {0: ("x", "GPU-a"), 1: ("y", "GPU-b"), 2: ("z", "GPU-a")}
    assert said == {k: (word, True, gpu, "3") for k, (word, gpu) in expected.items()}
    assert (tmp_path / "logs" / "1.log").read_text() == "a line of y\n"


def test_no_gpu_is_given_where_none_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Fleet(2)._environment(1)["CUDA_VISIBLE_DEVICES"] == ""


def ends_as_told(*ends: int) -> int:
    number = len(os.listdir("."))
    Path(str(number)).touch()
    if (end := ends[number]) < 0:
        os.kill(os.getpid(), -end)
    return end


@pytest.mark.parametrize(
    ("ends", "starts", "code"),
    [((-9, -11, 0), 3, 0), ((-9, -9, -9, 0), ATTEMPTS, -9), ((1, 0), 1, 1), ((7, 0), 2, 0)],
)
def test_a_killed_one_is_started_again_twice_at_most(
    ends: tuple[int, ...], starts: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Fleet(1) as fleet:
        assert fleet.work(ends_as_told, [ends]) == [code]
    assert len(os.listdir(".")) == starts


def raises(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(("error", "code"), [(ValueError("no"), 1), (SystemExit(1), 1), (SystemExit("no"), 1)])
def test_what_ends_a_worker_is_its_code(error: BaseException, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    with Fleet(1) as fleet:
        assert fleet.work(raises, [(error,)]) == [code]
    assert ("Traceback" in capfd.readouterr().err) == isinstance(error, ValueError)


def leaves_a_word(name: str) -> int:
    atexit.register(Path(name).write_text, "at the end")
    print("said", end="")
    return 1


def test_what_is_left_for_the_end_is_done(tmp_path: Path) -> None:
    with Fleet(1, logs=tmp_path) as fleet:
        assert fleet.work(leaves_a_word, [(str(tmp_path / "word"),)]) == [1]
    assert (tmp_path / "word").read_text() == "at the end"
    assert (tmp_path / "0.log").read_text() == "said"


def sleeps(name: str) -> int:
    say(os.getpid())
    Path(name).touch()
    try:
        time.sleep(60)
    finally:
        Path(f"{name} stopped").touch()
    return 0


def test_one_that_somebody_asks_to_stop_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pids: dict[int, int] = {}

    def hear(worker: Worker, pid: int) -> None:
        pids[worker.number] = pid
        if len(pids) == 2:
            os.kill(pids[1], signal.SIGTERM)

    with Fleet(2) as fleet:
        assert fleet.work(sleeps, [("a",), ("b",)], hear) == [INTERRUPTED, INTERRUPTED]
    assert sorted(os.listdir(".")) == ["a", "a stopped", "b", "b stopped"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_signals_are_passed_on(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_terminal: None
) -> None:
    monkeypatch.chdir(tmp_path)
    with Fleet(1) as fleet:
        codes = fleet.work(sleeps, [("a",)], heard=lambda worker, pid: os.kill(os.getpid(), number))
    assert (codes, fleet.received) == ([INTERRUPTED], [number])


def test_who_leaves_by_an_exception_leaves_nobody_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZeroDivisionError), Fleet(1) as fleet:
        fleet.work(sleeps, [("a",)], heard=lambda worker, pid: 1 // 0)
    assert (tmp_path / "a stopped").exists()


SUPERVISOR = """
import sys
sys.path.insert(0, sys.argv[1])
from test_fleet import Fleet, sleeps
with Fleet(1) as fleet:
    fleet.work(sleeps, [("a",)])
"""


def test_workers_end_when_their_supervisor_is_gone(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, here], cwd=tmp_path)
    while not (tmp_path / "a").exists():
        time.sleep(0.05)
    supervisor.kill()
    supervisor.wait()
    end = time.monotonic() + 60
    while not (tmp_path / "a stopped").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (tmp_path / "a stopped").exists()


def goes(name: str) -> int:
    say(f"{name} is ready")
    await_go()
    say(f"{name} goes")
    return 0


def test_those_that_wait_go_together() -> None:
    said: list[str] = []

    def hear(worker: Worker, message: str) -> None:
        said.append(message)
        if len(said) == 2:
            for each in fleet.workers:
                each.go()

    with Fleet(2) as fleet:
        assert fleet.work(goes, [("a",), ("b",)], hear) == [0, 0]
    assert sorted(said[:2]) == ["a is ready", "b is ready"]
    assert sorted(said[2:]) == ["a goes", "b goes"]


def test_the_module_needs_no_torch() -> None:
    code = f"import sys; import {module.__name__}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
