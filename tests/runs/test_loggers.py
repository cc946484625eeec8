"""Loggers write into the run's folder, each variant its own run, without a network."""

import pytest
from hydra.utils import instantiate

from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.identity import run_folder


def configs(logger):
    with config_loader() as loader:
        return compose_jobs(loader, "train", [f"logger={logger}", "seed=0,1"], multirun=True)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_two_variants_in_one_process_are_two_offline_wandb_runs():
    wandb = pytest.importorskip("wandb")
    for cfg in configs("wandb"):
        logger = instantiate(cfg.logger)
        logger.log_metrics({"loss": 1.0}, step=1)
        assert logger.experiment.id == run_folder(cfg).name
        assert list(run_folder(cfg).glob("wandb/offline-run-*"))
    wandb.finish()


def test_tensorboard_writes_into_the_run_folder():
    pytest.importorskip("tensorboard")
    cfg = configs("tensorboard")[0]
    logger = instantiate(cfg.logger)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.finalize("success")
    assert list(run_folder(cfg).glob("tensorboard/events.*"))


def test_csv_needs_no_logger():
    assert instantiate(configs("csv")[0].logger) == {}
