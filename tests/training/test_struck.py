"""Several signals in a row, at random moments: whole files, a true status, no lock left."""

from pathlib import Path

import pytest
from prepared import Prepared


@pytest.mark.slow
def test_signals_leave_nothing_half_done(prepared: Prepared, tmp_path: Path, tiny_words: list[str]) -> None:
    done = prepared.run([Path(__file__).with_name("struck.py"), tmp_path, *tiny_words])
    assert done.returncode == 0, done.stdout + done.stderr
