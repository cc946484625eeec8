"""A run can be put together, trained, scored and loaded without a config; and a run of a command can be loaded."""

import runpy
from pathlib import Path

import pytest
import torch

from flowzoo import train
from flowzoo.build import load
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.identity import run_folder
from flowzoo.training.checkpoint import read_weights
from flowzoo.training.loop import Loop
from flowzoo.training.optimizer import Optimizer
from flowzoo.training.rate import Linear

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_in_python.py"


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLE))["main"]
    run = main(2)
    assert run.state == "done"
    assert [(row["variant"], row["weights"], row["step"]) for row in run.rows()] == [
        ("rf/lognorm(0.00,1.00)", weights, 2) for weights in ("ema", "raw")
    ]
    assert (run.path / "circles.png").is_file()
    before = run.status
    main(2)  # there is nothing left to do
    assert run.status == before
    assert "is done already" in capsys.readouterr().out


def test_a_trained_run_is_loaded_with_its_weights(tmp_path: Path) -> None:
    words = ["text=words_short", "data.source.image_size=16", "data.source.size=64", "backbone.depth=1"]
    words += ["backbone.width=32", "backbone.heads=2", "trainer.steps=2", "trainer.batch_size=4", "trainer.val_every=2"]
    words += [
        "trainer.val_samples=4",
        "evaluation=quick",
        "evaluation.samples=4",
        "evaluation.settings=[{steps: 1, guidance: 1}]",
    ]
    with config_loader() as loader:
        (cfg,) = compose_jobs(loader, "train", [*words, "path=edm", f"runs={tmp_path}"], multirun=False)
    train.run(cfg)
    model = load(run_folder(cfg))
    assert model.formulation.name == "edm(-1.20,1.20)"
    state, step = read_weights(run_folder(cfg) / "checkpoints" / "best.ckpt", "ema")
    assert step == 2
    own = model.backbone.state_dict()
    assert own.keys() >= state.keys()
    assert all(torch.equal(own[name], value) for name, value in state.items())


def test_defaults_in_python_are_those_of_commands() -> None:
    with config_loader() as loader:
        (cfg,) = compose_jobs(loader, "train", [], multirun=False)
    own = Loop()
    assert {key: getattr(own, key) for key in cfg.trainer} == dict(cfg.trainer)
    assert (own.cache, own.workers) == (cfg.data.cache, cfg.data.workers)
    told = {**vars(Optimizer()), **vars(Linear())}
    assert told == {key: value for key, value in cfg.optimizer.items() if key != "_target_"} | {"betas": told["betas"]}
    assert list(told["betas"]) == cfg.optimizer.betas


def test_how_runs_are_judged_in_python_is_evaluation_paper() -> None:
    from flowzoo.build import evaluation_of
    from flowzoo.job import Evaluation

    with config_loader() as loader:
        (cfg,) = compose_jobs(loader, "train", [], multirun=False)
    own, told = Evaluation(), evaluation_of(cfg)
    for key in ("samples", "batch_size", "reference", "seed", "grid"):
        assert getattr(own, key) == getattr(told, key)
    assert list(own.weights) == list(told.weights)
    assert list(own.settings) == list(told.settings)
    assert [metric.identity for metric in own.metrics] == [metric.identity for metric in told.metrics]
    assert own.solver.name == told.solver.name
    assert own.solver.grid.name == told.solver.grid.name
    assert own.extractor.identity == told.extractor.identity
