"""Several workers started by one command."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

STUDY = {
    "parameters": {"sampler.m": {"low": -1.5, "high": 1.5}, "sampler.s": {"low": 0.2, "high": 2.5}},
    "n_trials": 10,
    "objective": {"_target_": "sweeps.search.toy.Toy", "seconds": 0.2},
}


def test_stopped_and_gone_on(tmp_path: Path) -> None:
    """A signal to the command stops all of its workers, and their trials wait; the same command ends the study."""
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(STUDY))
    command = [sys.executable, "-m", "sweeps", "search", "toy.yaml", "-j", "2"]
    folder = tmp_path / "runs" / "toy"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (folder / "trials.csv").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "the same command goes on" in err
    states = counts(folder)
    assert states.keys() <= {"done", "queued"}
    assert 0 < states["done"] < 10
    assert os.listdir(folder / ".search") == []

    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Pareto front" in done.stdout
    assert counts(folder) == {"done": 10}


def counts(folder: Path) -> Counter[str]:
    with open(folder / "trials.csv", newline="") as file:
        return Counter(row["state"] for row in csv.DictReader(file))
