"""A sweep on a real SLURM hit at random moments; tests/faults/inject.py takes any number of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("slurm")]


def test_a_sweep_hit_at_random_moments_is_the_undisturbed_one(tmp_path: Path) -> None:
    script, report = Path(__file__).parents[1] / "faults" / "inject.py", tmp_path / "report.json"
    short = ["--moments", "3", "--span", "8", "--seed", "0", "seeds=1", "trainer.steps=120"]
    done = subprocess.run(
        [sys.executable, script, "slurm", *short, "--report", report], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert len(told["strikes"]) == 3
    assert told["problems"] == []
