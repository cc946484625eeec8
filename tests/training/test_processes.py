"""Several processes train what one does: only the order of sums differs, in float64 less than anything that matters."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from flowzoo.runs.store import Run
from flowzoo.training.processes import Alone, Replicated, Sharded, part_of

STEPS = ["trainer.steps=10", "trainer.val_every=3", "trainer.checkpoint_every=5", "trainer.precision=64-true"]
TWO = ["trainer.devices=2"]


def test_who_has_what() -> None:
    assert type(part_of("auto", 0, 1)) is type(part_of("sharded", 0, 1)) is Alone
    assert type(part_of("auto", 1, 2)) is type(part_of("ddp", 1, 2)) is Replicated
    assert type(part_of("sharded", 1, 2)) is Sharded


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_what_processes_tell_each_other(strategy: str, tmp_path: Path) -> None:
    mp.spawn(_laws, (strategy, str(tmp_path / "store")), nprocs=3)


def _laws(rank: int, strategy: str, store: str) -> None:
    """The mean gradient, its norms, and whole rows from parts; 10 columns do not divide by 3."""
    world = 3
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    gen = torch.Generator().manual_seed(0)
    every = torch.randn(world, 2, 10, generator=gen, dtype=torch.float64)
    losses = torch.tensor([float(rank), 1.0], dtype=torch.float64)
    part, rows = part_of(strategy, rank, world), every[0]
    own = part.mean(every[rank].clone(), losses)
    torch.testing.assert_close(losses, torch.tensor([1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(part.whole(own, rows), every.mean(0))
    torch.testing.assert_close(part.norms(own, torch.float64), every.mean(0).norm(dim=1))
    assert torch.equal(part.whole(part.own(rows), rows), rows)
    nan = torch.tensor([float("nan") if rank == 1 else 0.0, 2.0], dtype=torch.float64)
    part.mean(every[rank].clone(), nan)
    assert nan.isnan().tolist() == [True, False]  # on every process
    dist.destroy_process_group()


def trained(words: list[str], runs: Path, variants: str) -> list[Run]:
    command = [sys.executable, "-m", "flowzoo.train", "-m", *words, f"variant={variants}", f"runs={runs}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return [Run.open(folder) for folder in sorted((runs / "solo").glob("*-s0-*"))]


def last(run: Run) -> dict[str, Any]:
    content = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)
    return {"raw": dict(content["state_dict"]), "ema": content["ema"]["shadow"], "optimizer": content["optimizer"]}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "variants"), [("ddp", "rf"), ("sharded", "edm_rf,v_cos")])
def test_two_processes_train_what_one_does_also_after_a_kill(
    strategy: str, variants: str, tmp_path: Path, tiny_words: list[str]
) -> None:
    words = [*tiny_words, *STEPS, *(["trainer=stacked"] if "," in variants else [])]
    two = [*words, *TWO, f"trainer.strategy={strategy}", "trainer.checkpoint_every=1"]
    command = [sys.executable, "-m", "flowzoo.train", "-m", *two, f"variant={variants}", f"runs={tmp_path / 'two'}"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as first:
        while first.poll() is None and not list((tmp_path / "two").glob("solo/*/checkpoints/last.ckpt")):
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGKILL)
    ones = trained(words, tmp_path / "one", variants)
    twos = trained(two, tmp_path / "two", variants)
    assert len(ones) == len(twos) == 1 + variants.count(",")
    for one, other in zip(ones, twos, strict=True):
        assert (one.state, other.state) == ("done", "done")
        torch.testing.assert_close(last(other), last(one), rtol=1e-10, atol=1e-10)
        norms: Callable[[Run], list[float]] = lambda run: [r["grad_norm"] for r in run.metrics() if "grad_norm" in r]  # noqa: E731
        assert norms(other) == pytest.approx(norms(one), rel=1e-8)
