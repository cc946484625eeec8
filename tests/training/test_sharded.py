"""trainer.strategy=fsdp: two processes that share the weights train what one does; checkpoints are those of one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from flowzoo.build import build
from flowzoo.runs.check import check_train
from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import Run
from flowzoo.training.checkpoint import load_weights
from flowzoo.training.job import train_and_score


@pytest.mark.slow
def test_two_shares_are_one_run_also_after_an_interruption(
    tmp_path: Path, tiny: Callable[..., DictConfig], tiny_words: list[str]
) -> None:
    steps = ["trainer.steps=40", "trainer.val_every=20", "trainer.checkpoint_every=5"]
    words = [*tiny_words, *steps, "trainer.devices=2", "trainer.strategy=fsdp", f"runs={tmp_path / 'two'}"]
    command = [sys.executable, "-m", "flowzoo.train", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        while first.poll() is None and not list((tmp_path / "two").glob("solo/*/checkpoints/last.ckpt")):
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGTERM)
        said, _ = first.communicate(timeout=120)
    assert first.returncode == 130, said
    (folder,) = (tmp_path / "two" / "solo").glob("rf-*")
    assert Run.open(folder).state == "preempted"

    # a run of one process goes on from there ...
    alone = tiny(*steps, runs="one")
    last = run_folder(alone) / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    shutil.copy(folder / "checkpoints" / "last.ckpt", last)
    train_and_score(alone)
    # ... as do the two
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run.open(folder)
    assert (run.state, run.status["attempt"]) == ("done", 2)

    undisturbed = tiny(*steps, runs="undisturbed")
    train_and_score(undisturbed)
    state = {}
    for name, checkpoints in (("two", folder), ("one", last.parents[1]), ("undisturbed", run_folder(undisturbed))):
        content = torch.load(checkpoints / "checkpoints" / "last.ckpt", weights_only=True)
        state[name] = {"raw": dict(content["state_dict"]), "ema": content["ema"]["shadow"]}
    # float32, and Adam divides small gradients by their own size; their norm shows what it hides
    torch.testing.assert_close(state["two"], state["undisturbed"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(state["one"], state["undisturbed"], rtol=1e-3, atol=1e-3)
    norms = [
        [record["grad_norm"] for record in Run.open(path).metrics() if "grad_norm" in record]
        for path in (folder, run_folder(undisturbed))
    ]
    torch.testing.assert_close(*norms, rtol=1e-3, atol=1e-6)
    load_weights(folder / "checkpoints" / "best.ckpt", build(undisturbed, run_folder(undisturbed)).backbone, "ema")


def test_what_lightning_cannot_share_is_refused_first(tiny: Callable[..., DictConfig]) -> None:
    with pytest.raises(ValueError, match=r"trainer\.precision=64-true with trainer\.strategy=fsdp"):
        check_train(tiny("trainer.strategy=fsdp", "trainer.precision=64-true"))
