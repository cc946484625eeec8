"""A frozen network's training as a job: told to save, it comes back and ends; the same command sends no second one."""

from pathlib import Path

import pytest
from cluster import ended, wait_for
from cluster import slurm as ask

from flowzoo.autoencoders.kl import load_kl
from flowzoo.runs.store import Run
from sweeps.__main__ import main
from sweeps.slurm import jobs_of

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("slurm")]
SMALL = [
    *("data.source.image_size=16", "data.source.size=100", "network.widths=[8,8,8]", "network.channels=4"),
    *("trainer.steps=400", "trainer.batch_size=2", "trainer.val_samples=2", "trainer.checkpoint_every=1000"),
    *("trainer.log_every=5", "quality.images=4", "optimizer.warmup_steps=1", "cluster.partition=debug"),
]


def test_an_autoencoder_is_trained_by_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit = ["submit", "train_autoencoder", f"output={tmp_path / 'kl.safetensors'}", *SMALL]
    assert main(submit) == 0
    (folder,) = tmp_path.glob("kl-*")
    job = jobs_of(folder)[folder.name].id
    assert f"job {job}: train_autoencoder to {folder}" in capsys.readouterr().out
    assert main(submit) == 0
    assert f"job {job} trains {folder} already, or will" in capsys.readouterr().out

    run = Run(folder)
    wait_for("its first steps", lambda: (folder / "metrics.jsonl").exists())
    ask("scancel", "--signal=USR2", job)  # SLURM's notice
    wait_for("its second attempt", lambda: run.status.get("attempt") == 2)
    assert ended(job) == ("COMPLETED", "0:0")
    assert run.state == "done"
    network, about = load_kl(tmp_path / "kl.safetensors")
    assert network.channels == about["architecture"]["channels"] == 4
