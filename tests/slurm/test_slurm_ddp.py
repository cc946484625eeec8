"""One run by two tasks of a real SLURM, which Lightning finds by SLURM's environment."""

from pathlib import Path

import pytest
from cluster import ended

from flowzoo.runs.store import Run
from sweeps.__main__ import main
from sweeps.manifest import Manifest
from sweeps.slurm import jobs_of

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("slurm")]


def test_a_task_for_each_device(small: Path, tmp_path: Path) -> None:
    small.write_text(small.read_text().replace('variants: [rf, "rf/lognorm(0.00,1.00)", edm/rf]', "variants: [rf]"))
    words = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.steps=20", f"runs={tmp_path}"]
    assert main(["submit", str(small), *words]) == 0
    (planned,) = Manifest.read(tmp_path / "small").runs
    job = jobs_of(tmp_path / "small")[planned.id].id
    assert ended(job) == ("COMPLETED", "0:0")
    run = Run(tmp_path / "small" / planned.id)
    assert (run.state, len(run.rows())) == ("done", 1)
    logs = sorted(path.name for path in (tmp_path / "small").glob(".submit/*/logs/*_log.out"))
    assert logs == [f"{job}_0_log.out", f"{job}_1_log.out"]
