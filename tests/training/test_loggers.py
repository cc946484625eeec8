"""Loggers write into the run's folder, each variant its own run, without a network."""

import json

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


def records(folder):
    """Of the newest offline run below `folder`: its run record, and its history as {training step: {name: number}}."""
    from wandb.proto.wandb_internal_pb2 import Record

    path = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    data, at, whole = path.read_bytes(), 7, b""  # after the file's header: records cut at blocks of 32 KiB
    run, history = None, {}
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # the only or the last piece
            record, whole = Record.FromString(whole), b""
            run = record.run if record.HasField("run") else run
            if record.HasField("history"):
                items = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
                assert items["_step"] not in history
                history[items["_step"]] = {k: v for k, v in items.items() if not k.startswith("_")}
    return run, history


ATTEMPT = """
from hydra.utils import instantiate
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.store import Run
with config_loader() as loader:
    cfgs = compose_jobs(loader, "train", ["logger=wandb", "seed={seeds}"], multirun=True)
loggers = [instantiate(cfg.logger) for cfg in cfgs]
runs = [Run.create(cfg) for cfg in cfgs]
for run in runs:
    run.truncate_metrics(20)  # as who goes on from the checkpoint of step 20
for step in {steps}:
    for cfg, run, logger in zip(cfgs, runs, loggers):
        run.append_metrics({{"step": step, "train_loss": cfg.seed + 1 / step, "val_loss_by_t": {{"ema": [1.0]}}}})
        logger.log_metrics({{"step": step, "train_loss": cfg.seed + 1 / step}}, step=step)
        logger.log_metrics({{"val_loss_ema": 2.0}}, step=step)  # of the same step: one row
for logger in loggers:
    logger.finalize("failed")
"""


def test_wandb_offline_keeps_variants_apart_and_goes_on_with_the_curve_of_each(prepared):
    """Two runs open together, as in a stack; then one of them goes on from step 20 in another process."""
    pytest.importorskip("wandb")
    first, second = configs("wandb")
    for seeds, steps in (("0,1", (10, 20, 30)), ("0", (30, 40))):
        done = prepared.run(["-c", ATTEMPT.format(seeds=seeds, steps=steps)])
        assert done.returncode == 0, done.stderr
    for cfg, steps in ((first, (10, 20, 30, 40)), (second, (10, 20, 30))):
        run, history = records(run_folder(cfg))
        assert run.run_id == f"{cfg.sweep}-{run_folder(cfg).name}"
        assert (run.run_group, run.display_name) == (cfg.sweep, "rf")
        assert [(step, row["train_loss"]) for step, row in history.items()] == [(s, cfg.seed + 1 / s) for s in steps]
        assert history[30]["val_loss_ema"] == 2.0
        assert history[30]["trainer/global_step"] == 30
    assert len(list(run_folder(first).glob("wandb/offline-run-*"))) == 2


def test_tensorboard_writes_into_the_run_folder():
    pytest.importorskip("tensorboard")
    cfg = configs("tensorboard")[0]
    logger = instantiate(cfg.logger)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.finalize("success")
    assert list(run_folder(cfg).glob("tensorboard/events.*"))


def test_csv_needs_no_logger():
    assert instantiate(configs("csv")[0].logger) == {}
