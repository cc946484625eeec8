"""Several processes train what one does: only the order of sums differs, in float64 less than anything that matters."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared import Prepared

from flowzoo.runs.store import Run
from flowzoo.training.processes import Alone, Replicated, Sharded, part_of

STEPS = ["trainer.steps=10", "trainer.val_every=3", "trainer.checkpoint_every=5", "trainer.precision=64-true"]
TWO = ["trainer.devices=2"]


def test_who_has_what() -> None:
    assert type(part_of("auto", 0, 1)) is type(part_of("sharded", 0, 1)) is Alone
    assert type(part_of("auto", 1, 2)) is type(part_of("ddp", 1, 2)) is Replicated
    assert type(part_of("sharded", 1, 2)) is Sharded


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_what_processes_tell_each_other(prepared: Prepared, strategy: str, tmp_path: Path) -> None:
    laws = [Path(__file__).with_name("processes_laws.py"), strategy, tmp_path / "store"]
    started = [prepared.start([*laws, rank], stderr=subprocess.PIPE) for rank in range(3)]
    said = [process.stderr.read() for process in started if process.stderr]
    assert [process.wait(600) for process in started] == [0, 0, 0], said


def trained(prepared: Prepared, words: list[str], runs: Path, variants: str) -> list[Run]:
    done = prepared.run(["-m", "flowzoo.train", "-m", *words, f"variant={variants}", f"runs={runs}"])
    assert done.returncode == 0, done.stdout + done.stderr
    return [Run.open(folder) for folder in sorted((runs / "solo").glob("*-s0-*"))]


def last(run: Run) -> dict[str, Any]:
    content = torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True)
    return {"raw": dict(content["state_dict"]), "ema": content["ema"]["shadow"], "optimizer": content["optimizer"]}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "variants"), [("ddp", "rf"), ("sharded", "edm_rf,v_cos")])
def test_two_processes_train_what_one_does_in_parts_also_after_a_kill(
    prepared: Prepared, strategy: str, variants: str, tmp_path: Path, tiny_words: list[str]
) -> None:
    words = [*tiny_words, *STEPS, *(["trainer=stacked"] if "," in variants else [])]
    two = [*words, *TWO, f"trainer.strategy={strategy}", "trainer.checkpoint_every=1", "trainer.accumulate=2"]
    command = ["-m", "flowzoo.train", "-m", *two, f"variant={variants}", f"runs={tmp_path / 'two'}"]
    first = prepared.start(command, start_new_session=True)
    while first.poll() is None and not list((tmp_path / "two").glob("solo/*/checkpoints/last.ckpt")):
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    ones = trained(prepared, words, tmp_path / "one", variants)
    twos = trained(prepared, two, tmp_path / "two", variants)
    assert len(ones) == len(twos) == 1 + variants.count(",")
    for one, other in zip(ones, twos, strict=True):
        assert (one.state, other.state) == ("done", "done")
        torch.testing.assert_close(last(other), last(one), rtol=1e-10, atol=1e-10)
        norms: Callable[[Run], list[float]] = lambda run: [r["grad_norm"] for r in run.metrics() if "grad_norm" in r]  # noqa: E731
        assert norms(other) == pytest.approx(norms(one), rel=1e-8)
