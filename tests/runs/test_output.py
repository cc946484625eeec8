"""Output that nobody reads: listings end quietly, work is asked to stop."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LISTINGS = [
    ["sweeps", "list"],
    ["sweeps", "list", "sd3_61"],
    ["sweeps", "status", "demo"],
    ["sweeps", "--help"],
    ["analysis.rank", "table.csv"],
    ["flowzoo.train", "--cfg", "job"],
    ["flowzoo.train", "trainer.steps=0"],
]
TABLE = "variant,steps,guidance,weights,fid,clip\nrf,5,1,ema,10,0.2\nedm,5,1,ema,12,0.3\n"


def without_reader(command: list[str], cwd: Path, stream: str = "stdout") -> "subprocess.CompletedProcess[str]":
    """Runs it with a pipe whose reader is gone already."""
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    try:
        return subprocess.run(
            [sys.executable, *command], cwd=cwd, text=True, timeout=1200, **{stream: writer, other: subprocess.PIPE}
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize("command", LISTINGS, ids=" ".join)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_command_whose_output_is_lost_ends_quietly(command: list[str], stream: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(TABLE)
    done = without_reader(["-m", *command], tmp_path, stream)
    told = (done.stdout or "") + (done.stderr or "")
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert "BrokenPipe" not in told
    assert done.returncode in (0, 2, 141)


CODE = """
import sys
from flowzoo.runs.output import follow
from flowzoo.runs.signals import Notice, shielded, stoppable
follow()
say = lambda: print("a line", file=sys.{stream}, flush=True)
notice = Notice()
told = open("told", "w", buffering=1)
with notice.listening():
    say()
    say()  # which leads nowhere
told.write(f"{{notice.signal.name}} ")
try:
    stoppable(say)()
    told.write("once ")
except KeyboardInterrupt:
    told.write("twice ")
"""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_lost_output_is_heard_once_as_a_signal_is(stream: str, tmp_path: Path) -> None:
    without_reader(["-c", CODE.format(stream=stream)], tmp_path, stream)
    assert (tmp_path / "told").read_text() == "SIGPIPE once "


def test_output_that_was_closed_from_the_start_is_not_missed(tmp_path: Path) -> None:
    code = (
        "from flowzoo.runs.output import follow; follow(); print('x', flush=True); "
        "f = open('kept', 'w'); print('y', flush=True); f.write(str(f.fileno()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1)
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert int((tmp_path / "kept").read_text()) > 2


def test_output_to_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sweeps", "list", "sd3_61"]
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "cannot write the output: No space left on device\n")
