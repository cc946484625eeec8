"""Signals at random moments of a short training, twice and three times: whole files, a true status, no lock left."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowzoo.runs.lock import LOCK
from flowzoo.runs.store import FINISHED, Run
from flowzoo.training import checkpoint

WORDS = ["trainer.steps=60", "trainer.val_every=10", "trainer.checkpoint_every=2", "trainer.log_every=1"]
SIGNALS = [signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
KINDS = {
    "alone": ["path=rf"],
    "stack": ["-m", "path=rf,v_cos", "trainer=stacked", "stack.processes=1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 3])
def test_signals_leave_nothing_half_done(
    kind: str, count: int, tmp_path: Path, tiny_words: list[str], in_a_terminal: None
) -> None:
    draw = random.Random(f"{kind} {count}")
    command = [sys.executable, "-m", "flowzoo.train", *tiny_words, *WORDS, f"runs={tmp_path}", *KINDS[kind]]
    folder = tmp_path / "solo"
    for hit, since in ((True, LOCK), (True, "checkpoints/last.ckpt"), (False, "")):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while hit and process.poll() is None and not list(folder.glob(f"*/{since}")):
            time.sleep(0.01)
        for number in draw.choices(
            [signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP], k=count if hit else 0
        ):
            time.sleep(draw.uniform(0, 4) if draw.random() < 0.4 else draw.uniform(0, 0.05))
            if list(folder.glob(f"*/{LOCK}")):  # before and after that, Python itself listens
                process.send_signal(number)
        out, err = process.communicate(timeout=300)
        if process.returncode >= 0:  # or a signal came when all was over
            assert "Traceback" not in out + err
            assert process.returncode in ((0, 130) if hit else (0,)), err
        runs = [Run(path) for path in folder.iterdir()]
        states = {run.state for run in runs}
        assert states <= {"preempted", "queued", *FINISHED} if process.returncode else states == {"done"}
        for run in runs:
            left = [path.name for path in run.path.rglob("*") if path.name.endswith(".part") or path.name[0] == "."]
            assert left == []
            for path in (run.path / "checkpoints").glob("*.ckpt"):
                assert checkpoint.load(path)["global_step"] > 0
            if (run.path / "checkpoints" / "last.ckpt").exists():
                assert run.status["step"] == checkpoint.step_of(run.path / "checkpoints" / "last.ckpt")
