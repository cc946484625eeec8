from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from flowzoo.runs.config import compose_jobs, config_loader

TINY = [
    "text=words",
    "text.encoders.words.length=4",
    "data.source.image_size=16",
    "data.source.size=128",
    "autoencoder=pixels",
    "backbone.depth=1",
    "backbone.width=32",
    "backbone.heads=1",
    "trainer.accelerator=cpu",
    "trainer.batch_size=8",
    "trainer.val_samples=8",
    "trainer.log_every=2",
    "optimizer.warmup_steps=2",
    "optimizer.lr=1e-3",
    "ema.every=2",
    "evaluation=quick",
    "evaluation.samples=66",
    "evaluation.batch_size=66",
    "evaluation.reference=70",
    "evaluation.settings=[{steps: 2, guidance: 2.0}, {steps: 2, guidance: 1.0}]",
    "evaluation.weights=[ema, raw]",
]


@pytest.fixture
def tiny_words(random_extractor: list[str]) -> list[str]:
    """The words of a run of seconds."""
    return [*TINY, *random_extractor]


@pytest.fixture
def tiny_jobs(tiny_words: list[str], tmp_path: Path) -> Callable[..., list[DictConfig]]:
    """The configs of a multirun of seconds, in a folder of its own."""

    def compose(*overrides: str, runs: str = "runs", multirun: bool = True) -> list[DictConfig]:
        with config_loader() as loader:
            words = [*tiny_words, f"runs={tmp_path / runs}", *overrides]
            return compose_jobs(loader, "train", words, multirun=multirun)

    return compose


@pytest.fixture
def tiny(tiny_jobs: Callable[..., list[DictConfig]]) -> Callable[..., DictConfig]:
    """The config of a run of seconds, in a folder of its own."""

    def compose(*overrides: str, runs: str = "runs") -> DictConfig:
        (cfg,) = tiny_jobs(*overrides, runs=runs, multirun=False)
        return cfg

    return compose
