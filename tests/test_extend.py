"""python -m flowzoo.extend: the longer run as if trained from the start, or one line that says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowzoo import train
from flowzoo.extend import check, extend
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import Run, RunError
from flowzoo.runs.trained import Trained, load_run

WORDS = [
    *("path=rf", "text=words", "text.encoders.words.length=4", "data.source.image_size=16", "data.source.size=96"),
    *("backbone.depth=1", "backbone.width=32", "backbone.heads=1", "trainer.accelerator=cpu", "trainer.batch_size=8"),
    *("trainer.val_samples=8", "trainer.log_every=2", "trainer.val_every=4", "trainer.checkpoint_every=3"),
    *("optimizer.warmup_steps=2", "optimizer.lr=1e-3", "ema.every=2", "evaluation=quick", "evaluation.weights=[ema]"),
    *("evaluation.samples=66", "evaluation.reference=70", "evaluation.settings=[{steps: 2, guidance: 2.0}]"),
]
Trains = Callable[..., Run]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_extractor: list[str]) -> Trains:
    """Trains a run of so many steps in the folder of a sweep."""
    monkeypatch.chdir(tmp_path)

    def run(steps: int, *words: str, sweep: str = "short") -> Run:
        given = [*WORDS, *random_extractor, f"trainer.steps={steps}", f"sweep={sweep}", *words]
        with config_loader() as loader:
            (cfg,) = compose_jobs(loader, "train", given, multirun=False)
        train.run(alone(cfg))
        return Run(run_folder(cfg))

    return run


def asked(run: Run, *words: str) -> Trained:
    told = load_run("extend", [f"run={run.path}", *words])
    check(told)
    return told


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    return one == other


def assert_twins(one: Run, other: Run) -> None:
    assert one.path.name == other.path.name
    for name in ("best", "last"):
        a, b = (torch.load(run.path / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (one, other))
        assert same(a, b), name
    timing = ("images_per_s", "loader_wait", "seconds")
    for read in (Run.metrics, Run.rows):
        told = [[{k: v for k, v in record.items() if k not in timing} for record in read(run)] for run in (one, other)]
        assert told[0] == told[1]
    assert {**one.config, "sweep": ""} == {**other.config, "sweep": ""}
    assert {p.relative_to(one.path) for p in one.path.rglob("*")} == {
        p.relative_to(other.path) for p in other.path.rglob("*")
    }


@pytest.mark.parametrize("words", [[], ["autoencoder=pixels", "optimizer=lion"]], ids=["latents", "pixels"])
def test_it_is_the_run_of_that_length(trained: Trains, words: list[str]) -> None:
    """8 steps do not see all images, 16 see some again, so that their latents are kept."""
    short = trained(8, *words)
    before = {path: path.read_bytes() for path in short.path.rglob("*") if path.is_file()}
    told = asked(short, "steps=16")
    extend(told)
    assert_twins(Run(run_folder(told.cfg)), trained(16, *words, sweep="fresh"))
    assert {path: path.read_bytes() for path in short.path.rglob("*") if path.is_file()} == before


def test_a_logger_is_told_its_new_run(trained: Trains) -> None:
    told = asked(trained(4, "logger=tensorboard"), "steps=8")
    assert Path(told.cfg.logger.save_dir).name == run_folder(told.cfg).name


def test_what_would_be_another_run_is_refused_and_the_fresh_one_offered(trained: Trains) -> None:
    run = trained(4, "optimizer.decay_to=0.5")
    with pytest.raises(
        ValueError, match=r"steps=8: with optimizer\.decay_to=0\.5 the learning rate .*; allowed: fresh=true"
    ):
        asked(run, "steps=8")
    told = asked(run, "steps=8", "fresh=true")
    extend(told)
    assert_twins(Run(run_folder(told.cfg)), trained(8, "optimizer.decay_to=0.5", sweep="fresh"))


@pytest.mark.parametrize(
    ("steps", "given", "words", "told"),
    [
        (4, [], ["steps=4"], "steps=4: the run has 4 already"),
        (4, [], [], "steps=null: allowed is an integer"),
        (4, [], ["steps=8", "trainer.precision=64-true"], "makes it another run"),
        (4, ["optimizer/rate=cosine"], ["steps=8"], r"with optimizer\.rate the learning rate"),
        (6, [], ["steps=8"], r"ended at step 6, which is no multiple of trainer\.val_every=4"),
        (4, ["trainer.log_every=3"], ["steps=8"], r"no multiple of trainer\.log_every=3"),
    ],
)
def test_nonsense_is_refused(trained: Trains, steps: int, given: list[str], words: list[str], told: str) -> None:
    run = trained(steps, *given)
    before = set(run.path.parent.iterdir())
    with pytest.raises(ValueError, match=told):
        asked(run, *words)
    assert set(run.path.parent.iterdir()) == before


def test_one_that_is_not_done_is_refused(trained: Trains) -> None:
    run = trained(4)
    (run.path / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match=r"metrics\.jsonl is missing: .* allowed: fresh=true"):
        extend(asked(run, "steps=8"))
    run.set_status("preempted")
    with pytest.raises(ValueError, match="it is preempted; allowed is a run that is done"):
        asked(run, "steps=8")
