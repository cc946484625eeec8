"""Several signals in a row, at random moments: whole files, a true status, no lock left."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_signals_leave_nothing_half_done(tmp_path: Path, tiny_words: list[str]) -> None:
    script = Path(__file__).with_name("struck.py")
    done = subprocess.run([sys.executable, script, tmp_path, *tiny_words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
