"""Runs on tars and on what was encoded before: killed at random and begun again, they end as if nobody had."""

import random
import signal
import time
from pathlib import Path

import pytest
import tars
import torch
from prepared import Prepared

from flowzoo import encode
from flowzoo.runs.single import composed

STEPS = 60
DATA = ["data.source.path=tars", "data.source.image_size=8", "data.source.val_fraction=0.3"]
WORDS = ["-m", "flowzoo.train", "data.workers=2", "text=words", "autoencoder=pixels", "backbone.depth=1"]
WORDS += ["backbone.width=32", "backbone.heads=1", "trainer.accelerator=cpu", f"trainer.steps={STEPS}"]
WORDS += ["trainer.batch_size=8", "trainer.val_samples=4", "trainer.checkpoint_every=5", "evaluation.samples=8"]
WORDS += [
    "evaluation.reference=8",
    "evaluation.settings=[{steps: 1, guidance: 1.0}]",
    "metric=[clip]",
    "data.cache=none",
]


@pytest.mark.parametrize("kind", ["shards", "latents"])
def test_killed_at_random_a_run_ends_as_if_nobody_had(
    tmp_path: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tars.folder(tmp_path / "tars", 2)
    data = ["data=shards", *DATA, "data.source.synthetic=json.dense"]
    if kind == "latents":
        encoding = ["text=words", "autoencoder=pixels", "accelerator=cpu", "data.workers=0", "out=set"]
        encode.run(composed("encode", [*data, *encoding]))
        data = ["data=latents", "data.source.path=set"]
    assert prepared.start([*WORDS, *data, "sweep=whole"]).wait() == 0
    draw, kills = random.Random(0), 0

    def last() -> int:
        return max(
            (path.stat().st_mtime_ns for path in tmp_path.glob("runs/killed/*/checkpoints/last.ckpt")), default=0
        )

    for _ in range(10):
        before, killed = last(), prepared.start([*WORDS, *data, "sweep=killed"])
        while killed.poll() is None and (kills == 3 or last() == before):
            time.sleep(0.001)
        if killed.poll() is None:
            time.sleep(draw.uniform(0, 0.1))
            killed.send_signal(signal.SIGKILL)
            kills += 1
        if killed.wait() == 0:
            break
    assert kills >= 2
    (one,), (other,) = (list(tmp_path.glob(f"runs/{sweep}/*/checkpoints/last.ckpt")) for sweep in ("whole", "killed"))
    assert one.parent.parent.name == other.parent.parent.name
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (one, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(x, states[1][name]) for name, x in states[0].items())
