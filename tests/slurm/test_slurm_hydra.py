"""Hydra's own launcher on a real SLURM: one job runs through, one raises, one is told to stop and goes on."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster import ended, wait_for
from cluster import slurm as ask

from flowzoo.runs.store import Run

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("slurm")]


def test_jobs_of_the_submitit_launcher(small: Path, tmp_path: Path) -> None:
    words = [*yaml.safe_load(small.read_text())["overrides"], f"runs={tmp_path}", "sweep=x", "seed=0,1,2"]
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=debug"]
    command = [sys.executable, "-m", "flowzoo.train", "-m", *launcher, *words]

    def folder_of(seed: int) -> Path:
        return wait_for(f"the folder of seed {seed}", lambda: list((tmp_path / "x").glob(f"rf-s{seed}-*")))[0]

    with open(tmp_path / "said", "w") as said, subprocess.Popen(command, stdout=said, stderr=said) as launched:
        array = wait_for("the jobs", lambda: ask("squeue", "-h", "-n", "train", "-o", "%F").split())[0]
        struck = folder_of(1)  # before the others are waited for, which can take longer than its whole training
        (struck / "checkpoints").touch(exist_ok=False)  # before its first checkpoint
        folders = [folder_of(0), struck, folder_of(2)]
        log = folders[2] / "metrics.jsonl"
        wait_for("training of the third", lambda: log.exists() and log.stat().st_size)
        ask("scancel", "--signal=USR2", f"{array}_2")
        assert launched.wait(1200) == 1
    assert "File exists" in (tmp_path / "said").read_text()
    assert [ended(f"{array}_{i}") for i in range(3)] == [("COMPLETED", "0:0"), ("FAILED", "1:0"), ("COMPLETED", "0:0")]
    assert [Run(folder).state for folder in folders] == ["done", "failed", "done"]
    assert [Run(folder).status["attempt"] for folder in folders] == [1, 1, 2]
    assert not list(tmp_path.rglob("hpc_ckpt*"))
