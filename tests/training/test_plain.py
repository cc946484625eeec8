"""All 61, alone and stacked, against a loop in plain torch: losses, gradient norms, weights and their average.

Runs alone and stacks share code, so that neither can vouch for the other.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from paper import PAPER
from plain import train
from torch import Tensor, nn
from torch.testing import assert_close

from flowzoo.backbones.crossdit import CrossDiT
from flowzoo.backbones.dit import DiT
from flowzoo.backbones.mmdit import MMDiT
from flowzoo.backbones.uvit import UViT
from flowzoo.build import jobs_of
from flowzoo.data.shapes import Shapes
from flowzoo.encoders.text import TextEncoder, TextEncoders
from flowzoo.encoders.tower import ClipTower
from flowzoo.encoders.words import WordEncoder
from flowzoo.formulation.names import TABLE, file_name
from flowzoo.job import Job, Stack
from flowzoo.randomness import word
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import Run
from flowzoo.training.checkpoint import LAST, PREFIX, load
from flowzoo.training.ema import average
from flowzoo.training.fit import fit

# What both sides are told. Epochs of 20 images end inside a batch of 8, some gradients are clipped and some are not,
# and 255 * mean and 255 * std are whole numbers, which float32 holds. With AdamW's usual eps a gradient of 1e-8 would
# multiply the last digits in which two ways of computing a schedule differ.
STEPS, BATCH, IMAGES = 5, 8, 20
DATA = {
    "mean": torch.tensor([0.4, 0.6, 0.8], dtype=torch.float64),
    "std": torch.tensor([0.2, 0.6, 0.4], dtype=torch.float64),
}
ADAMW = {"betas": (0.9, 0.99), "eps": 1e-4, "warmup_steps": 2, "decay_to": 0.2}
EMA = {"ema_every": 2, "ema_decay": 0.7}
WORDS = [
    *("trainer.precision=64-true", f"trainer.steps={STEPS}", f"trainer.batch_size={BATCH}", "trainer.log_every=1"),
    *("trainer.val_samples=1", f"data.source.size={IMAGES}", "data.mean=[0.4, 0.6, 0.8]", "data.std=[0.2, 0.6, 0.4]"),
    *("optimizer.betas=[0.9, 0.99]", "optimizer.eps=1e-4", "optimizer.warmup_steps=2", "optimizer.decay_to=0.2"),
    *("ema.every=2", "ema.decay=0.7", "backbone.patch_size=4", "backbone.width=32", "backbone.heads=2"),
]
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "dit": DiT,
    "crossdit": CrossDiT,
    "uvit": partial(UViT, level_blocks=2),
    "mmdit": MMDiT,
    "mmdit3": partial(MMDiT, split_text=True),
}
Jobs = Callable[..., list[DictConfig]]
Trained = tuple[list[float], list[float], dict[str, Tensor], dict[str, Tensor]]  # losses, norms, weights, average


def own(i: int) -> dict[str, Any]:
    """What run number i has of its own."""
    return {"seed": (0, 3)[i % 2], "lr": 1e-3 * (1 + i % 3), "weight_decay": (0.3, 0.0, 0.0)[i % 3]}


def plain(names: Sequence[str], encoders: Sequence[TextEncoder], network: str, depth: int, **how: Any) -> list[Trained]:
    spec = TextEncoders({str(i): encoder for i, encoder in enumerate(encoders)}).spec
    source = Shapes("train", image_size=16, size=IMAGES)
    results = []
    for i, name in enumerate(names):
        one = own(i)
        torch.manual_seed(word(one["seed"], 0, "weights"))
        sizes = {"patch_size": 4, "depth": depth, "width": 32, "heads": 2}
        net = NETWORKS[network](channels=3, size=(16, 16), text=spec, **sizes)
        losses, norms, shadow = train(
            net, PAPER[name], source, encoders, **one, **how, **ADAMW, **EMA, **DATA, steps=STEPS, batch_size=BATCH
        )
        results.append((losses, norms, net.state_dict(), shadow))
    return results


@cache
def all_61() -> list[Trained]:
    return plain(list(PAPER), [WordEncoder(length=4, dim=64)], "mmdit", 1, clip_norm=0.8, bias_correction=True)


def configs(tiny_jobs: Jobs, names: Sequence[str], *words: str, runs: str = "runs") -> list[DictConfig]:
    jobs = tiny_jobs(*WORDS, f"variant={','.join(map(file_name, names))}", *words, runs=runs)
    cfgs = [alone(job) for job in jobs]
    for i, cfg in enumerate(cfgs):
        cfg.seed, cfg.optimizer.lr, cfg.optimizer.weight_decay = own(i).values()
    return cfgs


def trained_alone(cfgs: Sequence[DictConfig]) -> list[Trained]:
    for cfg in cfgs:
        fitted(jobs_of([cfg]))
    return list(map(result, cfgs))


def trained_together(cfgs: Sequence[DictConfig]) -> list[Trained]:
    fitted(jobs_of(cfgs))
    return list(map(result, cfgs))


def fitted(jobs: Sequence[Job]) -> None:
    with ExitStack() as locks:
        for job in jobs:
            job.run.make(job.config, job.variant)
            locks.enter_context(job.run.lock())
        fit(Stack(jobs), 0)


def result(cfg: DictConfig) -> Trained:
    """From the run's folder."""
    run = Run.open(run_folder(cfg))
    records = [record for record in run.metrics() if "train_loss" in record]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    content = load(run.path / "checkpoints" / LAST)
    weights = {name.removeprefix(PREFIX): value for name, value in content["state_dict"].items()}
    shadow = average(content["ema"])
    assert shadow is not None
    return [r["train_loss"] for r in records], [r["grad_norm"] for r in records], weights, shadow


def assert_equal(names: Sequence[str], found: Sequence[Trained], expected: Sequence[Trained]) -> None:
    for name, (*numbers, weights, shadow), (*known, own_weights, own_shadow) in zip(
        names, found, expected, strict=True
    ):
        for mine, plainly in zip(numbers, known, strict=True):
            assert mine == pytest.approx(plainly, rel=1e-10), name
        for mine, plainly in ((weights, own_weights), (shadow, own_shadow)):
            assert mine.keys() == plainly.keys(), name
            for key, value in mine.items():
                assert_close(value, plainly[key], rtol=1e-10, atol=1e-10, msg=f"{name} {key}")


def test_the_61_are_the_papers() -> None:
    assert len(PAPER) == 61
    assert set(PAPER) == set(TABLE)


@pytest.mark.parametrize("trained", [trained_alone, trained_together])
def test_each_of_the_61(tiny_jobs: Jobs, trained: Callable[[Sequence[DictConfig]], list[Trained]]) -> None:
    cfgs = configs(tiny_jobs, list(PAPER), "backbone.depth=1", "trainer.clip_norm=0.8")
    assert_equal(list(PAPER), trained(cfgs), all_61())


@pytest.mark.parametrize("network", NETWORKS)
def test_every_backbone(tiny_jobs: Jobs, network: str) -> None:
    """With two text encoders, dropped independently, without clipping, and with the paper's plain average."""
    names = ["v/cos", "edm(-1.20,1.20)"]
    expected = plain(
        names, [ClipTower(length=4), WordEncoder(length=4, dim=64)], network, 2, clip_norm=None, bias_correction=False
    )
    words = [f"backbone={network}", "backbone.depth=2", "text=clip_words", "text.encoders.clip.length=4"]
    words += ["trainer.clip_norm=null", "ema.bias_correction=false"]
    for trained in (trained_alone, trained_together):
        assert_equal(names, trained(configs(tiny_jobs, names, *words, runs=trained.__name__)), expected)
