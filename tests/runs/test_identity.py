"""What a run is called: equal for what cannot change its weights, different for what can."""

import re
from functools import cache

import pytest
from omegaconf import DictConfig, OmegaConf

from flowzoo.formulation import names
from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.identity import run_folder, run_hash


@cache
def jobs(*overrides: str, multirun: bool = False) -> list[DictConfig]:
    with config_loader() as loader:
        return compose_jobs(loader, "train", overrides, multirun)


SAME = [
    "runs=elsewhere",
    "sweep=other",
    "logger=wandb",
    "solver=heun",
    "solver/grid=path",
    "solver.shift=3",
    "evaluation=quick",
    "evaluation.samples=7",
    "metric=clip_file",
    "sigma_data=data",  # rf has no preconditioning
    "trainer.accelerator=cpu",
    "trainer.compile=false",
    "trainer.strategy=ddp",
    "trainer.log_every=3",
    "trainer.checkpoint_every=3",
    "data.cache=none",
    "data.workers=9",
    "variant=rf",  # the same formulation by its other name
    "hydra/launcher=submitit_slurm",
]
OTHER = [
    "seed=1",
    "path=v_cos",
    "sampler=lognorm",
    "backbone=dit",
    "backbone.depth=2",
    "backbone.qk_norm=false",
    "data.source.image_size=16",
    "data.source.seed=1",
    "captions=dense",
    "text=words",
    "trainer.steps=5",
    "trainer.batch_size=64",
    "trainer.precision=32-true",
    "trainer.clip_norm=null",
    "trainer.devices=2",
    "trainer.val_every=10",
    "trainer.val_samples=10",
    "optimizer.lr=1",
    "optimizer.decay_to=0",
    "ema.decay=0.5",
    "ema.bias_correction=false",
]


@pytest.mark.parametrize("override", SAME)
def test_the_hash_leaves_out(override):
    assert run_hash(jobs(override)[0]) == run_hash(jobs()[0])


def test_the_hash_tells_apart():
    hashes = [run_hash(jobs(override)[0]) for override in OTHER]
    assert len({run_hash(jobs()[0]), *hashes}) == len(OTHER) + 1


def test_sigma_data_counts_where_it_is_used():
    edm = [run_hash(jobs("path=edm", f"sigma_data={value}")[0]) for value in ("0.5", "0.6", "data")]
    assert len(set(edm)) == 3


def test_the_hash_survives_the_config_file(tmp_path):
    (cfg,) = jobs("variant=rf_mode_1.29", "logger=wandb")
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.to_container(cfg, resolve=True)))
    assert run_hash(OmegaConf.load(path)) == run_hash(cfg)


def test_folders_are_named_by_the_resolved_formulation():
    (a,), (b,) = jobs("variant=rf_lognorm_0.50_1.00"), jobs("sampler=lognorm", "sampler.m=0.5")
    assert run_folder(a) == run_folder(b)
    assert re.fullmatch(r"runs/solo/rf_lognorm_0\.50_1\.00-s0-[0-9a-f]{8}", str(run_folder(a)))
    assert re.fullmatch(
        r"r/x/edm_rf-s7-[0-9a-f]{8}", str(run_folder(jobs("path=edm_rf", "seed=7", "runs=r", "sweep=x")[0]))
    )


def test_loggers_are_told_their_run():
    (cfg,) = jobs("logger=wandb", "sweep=x")
    assert (cfg.logger.id, cfg.logger.name) == (f"x-{run_folder(cfg).name}", "rf")
    assert cfg.logger.save_dir == str(run_folder(cfg))
    assert cfg.logger.group == "x"
    assert jobs("logger=tensorboard")[0].logger.save_dir == str(run_folder(jobs()[0]))


def test_all_61_compose_to_themselves_and_pass():
    all_61 = jobs("variant=glob(*)", multirun=True)
    printed = [names.variant_name(cfg.path, cfg.sampler) for cfg in all_61]
    assert sorted(printed) == sorted(names.TABLE)
    assert len({run_folder(cfg) for cfg in all_61}) == 61
    check_jobs(all_61)
