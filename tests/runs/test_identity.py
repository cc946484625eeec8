"""What a run is called: equal for what cannot change its weights, different for what can."""

import math
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from flowzoo.content import SHIPPED
from flowzoo.formulation import names
from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.identity import autoencoder_label, run_folder, run_hash, run_name


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
    "extractor=clip_file",
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


def test_losses_weightings_and_shifts_that_change_nothing_are_no_other_run():
    plain = run_hash(jobs()[0])
    for same in (["path/loss=velocity"], ["path/loss=velocity", "path.loss.clip=2"], ["weighting=none"]):
        assert run_hash(jobs(*same)[0]) == plain
    assert run_hash(jobs("sampler.shift=1")[0]) == plain
    law = ["sampler=lognorm", "sampler.m=0.5"]
    moved = jobs(*law, "sampler.shift=3")[0]
    assert run_folder(moved) == run_folder(jobs("sampler=lognorm", f"sampler.m={0.5 + math.log(3)!r}")[0])
    others = [["path/loss=x0"], ["path/loss=x0", "path.loss.clip=0.5"], ["weighting=min_snr"], ["sampler.shift=3"]]
    others += [["weighting=min_snr", "weighting.gamma=4"], ["weighting=soft_min_snr"]]
    assert len({plain, *(run_hash(jobs(*words)[0]) for words in others)}) == 7
    (clipped,) = jobs("path/target=x0", "path/loss=eps", "path.loss.clip=100")
    assert clipped.path.loss == {"_target_": "flowzoo.formulation.loss.OnEps", "clip": 100.0}


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


def test_all_variants_compose_to_themselves_and_pass():
    every = jobs("variant=glob(*)", multirun=True)
    printed = [names.variant_name(cfg.path, cfg.sampler) for cfg in every]
    assert sorted(printed) == sorted(names.VARIANTS)
    assert len({run_folder(cfg) for cfg in every}) == 62
    check_jobs(every)


def test_autoencoders_are_labelled_by_what_the_backbone_sees():
    (pca,) = jobs("autoencoder=pca", "autoencoder.spectrum_power=0.5")
    assert autoencoder_label(pca.autoencoder, 4, 16) == "pca_f4_c16_power0.5"
    for words, label in (([], "pixels_f1_c3"), (["autoencoder.gain=0.25"], "pixels_f1_c3_gain0.25")):
        (pixels,) = jobs("autoencoder=pixels", *words)
        assert autoencoder_label(pixels.autoencoder, 1, 3) == label


# Numbers, true and text.

ONE_NUMBER = [
    ["sampler=lognorm", "sampler.m=0,0.0,-0.0,0e0"],
    ["sampler=lognorm", "sampler.s=1,1.0,1e0"],
    ["path=edm", "path.schedule.P_m=0,-0.0"],
    ["path=edm", "sigma_data=1,1.0"],
    ["optimizer.weight_decay=0,0.0,-0.0"],
    ["optimizer.betas=[0,0.9],[0.0,0.9],[-0.0,9e-1]"],
    ["data.mean=[0,1,0.5],[0.0,1.0,0.5]", "data.std=[1,1,1]"],
    ["ema.decay=0,0.0"],
]


@pytest.mark.parametrize("words", ONE_NUMBER, ids=lambda words: " ".join(words))
def test_a_number_is_one_number_however_it_is_written(words):
    several = jobs(*words, multirun=True)
    assert len(several) > 1
    assert len({run_folder(cfg) for cfg in several}) == 1
    written = [OmegaConf.to_container(cfg, resolve=True) for cfg in several]
    assert len({str({k: v for k, v in one.items() if k not in ("data", "autoencoder")}) for one in written}) == 1
    with pytest.raises(ValueError, match="two jobs of this command are the same run"):
        check_jobs(several)


def test_true_and_text_are_no_numbers():
    base = OmegaConf.to_container(jobs()[0], resolve=True)
    hashes = [run_hash({**base, "sampler": {"_target_": "mine.Law", "x": x}}) for x in (1, True, "1", "true", None)]
    assert len(set(hashes)) == 5
    assert run_hash({**base, "sampler": {"_target_": "mine.Law", "x": [1.0, -0.0]}}) == run_hash(
        {**base, "sampler": {"_target_": "mine.Law", "x": [1, 0]}}
    )


# Classes.


def moved(node, home: str):
    """The config with every class of ours in another module."""
    if isinstance(node, dict):
        return {k: home + v.rpartition(".")[2] if k == "_target_" else moved(v, home) for k, v in node.items()}
    return [moved(v, home) for v in node] if isinstance(node, list) else node


@pytest.mark.parametrize(
    "words", [("variant=edm_0.60_1.20",), ("variant=rf_mode_1.29", "solver=euler_t"), ("path=edm_cos",)]
)
def test_moving_our_classes_changes_no_name(words):
    config = OmegaConf.to_container(jobs(*words)[0], resolve=True)
    assert run_name(moved(config, "flowzoo.elsewhere.")) == run_name(config)


def test_a_moved_class_is_taken_where_it_is_one_of_ours():
    (home,) = jobs()
    (away,) = jobs("sampler._target_=flowzoo.formulation.formulation.Uniform")  # which imports it
    check_jobs([away])
    assert run_folder(away) == run_folder(home)
    for target in ("flowzoo.formulation.formulation.CosMap", "flowzoo.nowhere.Uniform"):
        with pytest.raises(
            ValueError, match=f"sampler._target_ = {target} does not exist; allowed: .*timestep.Uniform"
        ):
            check_jobs([jobs(f"sampler._target_={target}")[0]])


def test_classes_from_outside_are_told_by_their_modules():
    base = OmegaConf.to_container(jobs()[0], resolve=True)
    assert run_hash(moved(base, "mine.")) != run_hash(moved(base, "yours."))
    assert run_hash(moved(base, "mine.")) != run_hash(base)


# Laws that equal another.


@pytest.mark.parametrize("zero", ["0", "0.0", "-0.0", "0e0"])
def test_mode_0_is_uniform_in_name_hash_config_and_check(zero):
    (cfg,), (uniform,) = jobs("sampler=mode", f"sampler.s={zero}"), jobs()
    assert run_folder(cfg) == run_folder(uniform)
    assert cfg.sampler == uniform.sampler
    (edm,) = jobs("path=edm", "sampler=mode", f"sampler.s={zero}")
    check_jobs([edm])
    with pytest.raises(ValueError, match="two jobs of this command are the same run"):
        check_jobs([cfg, uniform])


def test_a_config_that_was_written_by_hand_has_the_same_name():
    config = OmegaConf.to_container(jobs()[0], resolve=True)
    by_hand = config | {"sampler": {"_target_": "flowzoo.formulation.timestep.Mode", "s": 0}}
    assert run_name(by_hand) == run_name(config)


# Weights.


@pytest.fixture
def clip(tmp_path) -> Path:
    """The shipped CLIP under another name."""
    path = tmp_path / "a.safetensors"
    shutil.copyfile(SHIPPED, path)
    return path


def named(path: object) -> DictConfig:
    with config_loader() as loader:
        (cfg,) = compose_jobs(loader, "train", ["text=clip", f"text.encoders.clip.weights={path}"], multirun=False)
    return cfg


def test_weights_are_one_under_any_name(clip):
    other = clip.with_name("b.safetensors")
    other.symlink_to(clip)
    assert len({run_hash(named(path)) for path in (clip, other, SHIPPED, "null")}) == 1


def test_other_weights_under_the_same_name_are_another_run(clip):
    before = named(clip)
    content = clip.read_bytes()
    clip.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert run_hash(named(clip)) != run_hash(before)
    with pytest.raises(
        ValueError, match=r"text.encoders.clip.weights=.*a.safetensors: it holds other weights .* allowed"
    ):
        check_jobs([before])


def test_a_run_keeps_its_name_when_its_weights_move(clip):
    cfg = named(clip)
    name = run_name(cfg)
    clip.rename(clip.with_name("moved.safetensors"))
    assert run_name(cfg) == run_name(OmegaConf.to_container(cfg, resolve=True)) == name
    with pytest.raises(ValueError, match=r"text.encoders.clip.weights=.*no such file or folder"):
        check_jobs([cfg])
    assert run_name(named(clip.with_name("moved.safetensors"))) == name


@pytest.mark.parametrize("key", ["backbone.weights", "backbone.text_weights", "backbone.start"])
def test_any_key_that_names_weights_counts_by_its_content(tmp_path, key):
    base = OmegaConf.to_container(jobs()[0], resolve=True)
    base.pop("content")
    hashes = []
    for name, content in (("a.pt", b"1"), ("b.pt", b"1"), ("c.pt", b"2")):
        (tmp_path / name).write_bytes(content)
        backbone = {**base["backbone"], key.removeprefix("backbone."): str(tmp_path / name)}
        hashes.append(run_hash(base | {"backbone": backbone}))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_folder_of_weights_counts_by_all_its_files(tmp_path):
    base = OmegaConf.to_container(jobs()[0], resolve=True)
    base.pop("content")
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "model.bin").write_bytes(b"1")
    configs = [base | {"backbone": {**base["backbone"], "weights": str(tmp_path / name)}} for name in ("one", "two")]
    assert run_hash(configs[0]) == run_hash(configs[1])
    (tmp_path / "two" / "deep" / "model.bin").write_bytes(b"2")
    assert run_hash(configs[0]) != run_hash(configs[1])


def test_null_is_the_patch_that_it_stands_for():
    """Where the autoencoder's factor is in the config: the tokens of 4 pixels."""
    for autoencoder, patch, other in (
        (["autoencoder=pixels"], 4, 2),
        (["autoencoder=pca"], 1, 2),
        (["autoencoder=pca", "autoencoder.factor=2", "autoencoder.channels=12"], 2, 1),
    ):
        names = [
            run_name(jobs(*autoencoder, f"backbone.patch_size={size}")[0]) for size in ("null", str(patch), str(other))
        ]
        assert names[0] == names[1] != names[2]
