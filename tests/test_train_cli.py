"""python -m flowzoo.train: good commands reach the task job by job, bad ones are refused and leave nothing behind."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig

from flowzoo import train
from flowzoo.formulation import names
from flowzoo.runs.config import config_loader
from flowzoo.runs.identity import run_folder, run_variant
from flowzoo.runs.store import Interrupted, Run

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers


def typed(monkeypatch, *words: str, task=None) -> tuple[int, list[DictConfig]]:
    """The exit code of the command, and the configs that reached the task."""
    seen: list[DictConfig] = []

    def note(cfg: DictConfig) -> None:
        seen.append(cfg)
        if task is not None:
            task(cfg)

    monkeypatch.setattr(sys, "argv", ["train", *words])
    monkeypatch.setattr(train, "run", note)
    monkeypatch.setattr(train, "ready", lambda cfgs: None)
    with pytest.raises(SystemExit) as exit:
        train.main()
    return exit.value.code, seen


# What is typed, and what the message must name.
BAD = [
    (["path=rff"], ["path/rff", "eps_linear"]),
    (["-m", "path=rf,rff"], ["path/rff"]),
    (["path=edm", "sampler=lognorm"], ["edm", "lognorm"]),
    (["-m", "path=rf,edm_rf", "sampler=mode"], ["edm_rf", "mode"]),
    (["path=edm_cos", "sampler=cosmap"], ["edm_cos", "cosmap"]),
    (["sampler=mode", "sampler.s=2"], ["2", "-1", "1.75"]),
    (["sampler=mode", "sampler.s=-1.01"], ["-1.01"]),
    (["sampler=lognorm", "sampler.s=0"], ["0"]),
    (["-m", "sampler=lognorm", "sampler.m=0,nan"], ["nan"]),
    (["path=edm", "path.schedule.P_s=-1"], ["-1", "P_s"]),
    (["variant=rf_lognorm_9"], ["rf_lognorm_9"]),
    (["variant=rf", "path=edm"], ["variant=rf", "path"]),
    (["-m", "variant=glob(rf*)", "sampler.s=1"], ["variant=glob(rf*)", "sampler.s"]),
    (["variant=rf", "path.schedule.P_m=1"], ["variant=rf", "path.schedule.P_m"]),
    (["-m", "variant=glob(zz*)"], ["zz*", "no option"]),
    (["backbone.dual_attention=7"], ["backbone.dual_attention=7", "backbone.depth=6"]),
    (["backbone.dual_attention=-1"], ["backbone.dual_attention=-1", "0"]),
    (["solver=euler_t", "path=edm"], ["euler_t", "edm"]),
    (["solver.shift=0"], ["shift", "0"]),
    (["-m", "solver=recombine,heun"], ["same run", "runs/solo/rf-s0-"]),
    (["-m", "seed=1,1"], ["same run", "-s1-"]),
    (["seed=-1"], ["seed=-1", "at least 0"]),
    (["seed=1.5"], ["seed=1.5"]),
    (["sweep=a/b"], ["sweep=a/b"]),
    (["sigma_data=0"], ["0"]),
    (["captions=long"], ["captions=long", "terse"]),
    (["trainer.steps=0"], ["trainer.steps=0", "at least 1"]),
    (["trainer.steps=many"], ["trainer.steps=many", "integer"]),
    (["trainer.batch_size=true"], ["trainer.batch_size=true"]),
    (["trainer.stepz=5"], ["trainer.stepz"]),
    (["trainer.precision=fp8"], ["trainer.precision=fp8", "bf16-mixed"]),
    (["trainer.precision=16-mixed"], ["trainer.precision=16-mixed", "bf16-mixed"]),
    (["trainer.precision=bf16-true"], ["trainer.precision=bf16-true", "bf16-mixed"]),
    (["trainer.accelerator=mps"], ["trainer.accelerator=mps", "auto, cpu, gpu"]),
    (["trainer.devices=0"], ["trainer.devices=0"]),
    (["trainer.devices=3"], ["trainer.batch_size=128", "3"]),
    (["trainer.strategy=dpp"], ["trainer.strategy=dpp", "ddp"]),
    (["trainer.compile=maybe"], ["trainer.compile=maybe", "auto"]),
    (["trainer.val_every=0"], ["trainer.val_every=0"]),
    (["trainer.clip_norm=0"], ["trainer.clip_norm=0", "null"]),
    (["optimizer.lr=-1"], ["optimizer.lr=-1"]),
    (["optimizer.betas=[0.9,1]"], ["optimizer.betas", "[0.9, 1]"]),
    (["ema.decay=1"], ["ema.decay=1", "[0, 1)"]),
    (["ema.every=0"], ["ema.every=0"]),
    (["evaluation.weights=[best]"], ["best", "ema, raw, init"]),
    (["evaluation.weights=[]"], ["evaluation.weights=[]"]),
    (["evaluation.settings=[{steps: 0, guidance: 1}]"], ["'steps': 0", "at least 1"]),
    (["evaluation.settings=[{step: 5, guidance: 1}]"], ["'step': 5"]),
    (["evaluation.samples=1"], ["evaluation.samples=1"]),
    (["backbone=unet"], ["backbone/unet", "mmdit"]),
    (["backbone.width=100"], ["backbone.width=100", "64"]),
    (["backbone.width=256", "backbone.heads=3"], ["backbone.width=256", "heads=3"]),
    (["backbone.width=30", "backbone.heads=2"], ["backbone.width=30", "multiple of 4"]),
    (["backbone.patch_size=5"], ["backbone.patch_size=5", "8, the image size 32 over autoencoder.factor=4"]),
    (["backbone=uvit"], ["backbone.patch_size=null, which is 1 on autoencoder.factor=4", "a power of two from 2 on"]),
    (["backbone=uvit", "backbone.patch_size=3", "data.source.image_size=24"], ["backbone.patch_size=3", "a power of"]),
    (["data=folder"], ["data.source.path"]),
    (["data=folder", "data.source.path=/no/such/place"], ["/no/such/place"]),
    (["extractor=clip_file", "extractor.weights=/no/clip"], ["extractor.weights=/no/clip"]),
    (["text.encoders.clip.weights=/no/tower"], ["text.encoders.clip.weights=/no/tower"]),
    (
        ["extractor=clip_file", "extractor.weights=FILE"],
        ["extractor.weights=FILE", "does not hold weights", "train_clip"],
    ),
    (
        ["extractor=open_clip", "extractor.weights=FILE"],
        ["extractor.weights=FILE", "does not hold weights", "safetensors"],
    ),
    (["text.encoders.clip.weights=FILE"], ["text.encoders.clip.weights=FILE", "does not hold weights"]),
    (["text.encoders.clip.weights=."], ["text.encoders.clip.weights=.", "it is a folder"]),
    (["+backbone.foo=1"], ["backbone.foo", "MMDiT has no such parameter", "depth, width"]),
    (["+backbone.channels=1"], ["backbone.channels", "not given but found out"]),
    (["~backbone.depth"], ["backbone.depth is missing"]),
    (["~optimizer.lr"], ["optimizer.lr is missing"]),
    (["+optimizer.momentum=0.5"], ["optimizer.momentum", "weight_decay"]),
    (["+data.source.colour=1"], ["data.source.colour", "Shapes", "textured"]),
    (["+text.encoders.words.depth=1"], ["text.encoders.words.depth", "WordEncoder", "length, dim"]),
    (["autoencoder._target_=flowzoo.autoencoders.pixels.VAE"], ["autoencoder", "there is no VAE"]),
    (["extractor._target_=1"], ["extractor._target_=1", "name of a class"]),
    (["data.cache=disk"], ["data.cache=disk", "device"]),
    (["logger=neptune"], ["logger/neptune", "wandb"]),
    (["runs=FILE"], ["FILE", "is a file"]),
    (["foo=1"], ["foo: there is no foo in the config", "trainer"]),
    (["text=words", "text.encoders.clip.weights=FILE"], ["there is no clip in text.encoders", "allowed there: words"]),
    (["text=words", "+text.encoders.clip.weights=FILE"], ["text.encoders.clip=", "names no class"]),
    (["text.encoders=null"], ["text.encoders=null", "at least one text encoder"]),
    (["text.encoders.words=3"], ["text.encoders.words=3", "names its class"]),
    (["~text"], ["text.encoders"]),
    (["~backbone"], ["backbone=null"]),
    (["~path.schedule"], ["path.schedule=null"]),
    (["solver.grid=null"], ["solver.grid=null"]),
    (["data.source=null"], ["data.source=null"]),
    (["~trainer.steps"], ["trainer.steps is missing"]),
    (["~evaluation"], ["evaluation.samples is missing"]),
    (["sampler=lognorm", "sampler.m=[1]"], ["sampler.m=[1]", "one number"]),
    (["stack.size=2"], ["stack.size: allowed with trainer=stacked", "engine=stacked"]),
    (["trainer=stacked", "stack.siz=2"], ["there is no siz in stack", "size, processes"]),
    (["rf"], ["rf"]),
    (["path=rf,edm"], ["path=rf,edm", "take -m"]),
    (["hydra.searchpath=[file:///no/such/conf]"], ["/no/such/conf"]),
    (["--config-dir", "nowhere"], ["nowhere"]),
    (["--config-path", "nowhere"], ["--config-path"]),
    (["-m", "hydra/sweeper=optuna", "seed=1"], ["optuna"]),
    (["-m", "--cfg", "job", "path=rf,edm"], ["--multirun", "--cfg", "single job"]),
    (["-m", "--cfg", "job", "path=rf"], ["--multirun", "--cfg"]),
    (["--cfg", "job", "hydra.mode=MULTIRUN", "path=rf,edm"], ["--multirun", "--cfg"]),
]


def test_there_are_enough_bad_commands():
    assert len(BAD) >= 25


@pytest.mark.parametrize(("words", "named"), BAD, ids=lambda x: " ".join(x))
def test_nonsense_is_refused(monkeypatch, capsys, tmp_path, words, named):
    (tmp_path / "FILE").touch()
    code, seen = typed(monkeypatch, *words)
    message = capsys.readouterr().err
    assert code == 2
    assert seen == []
    assert message.startswith("flowzoo.train: ")
    assert message.count("\n") == 1
    for word in named:
        assert word in message
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_nonsense_in_a_shell(tmp_path):
    command = [sys.executable, "-m", "flowzoo.train", "-m", "path=rf,edm", "sampler=lognorm"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "edm" in done.stderr
    assert list(tmp_path.iterdir()) == []


GOOD = [
    (["path=rf", "sampler=lognorm"], ["rf/lognorm(0.00,1.00)"]),
    (["-m", "path=rf", "sampler=lognorm"], ["rf/lognorm(0.00,1.00)"]),
    (["-m", "path=rf,eps_linear,edm", "sampler=uniform"], ["rf", "eps/linear", "edm(-1.20,1.20)"]),
    (["hydra.mode=MULTIRUN", "path=rf,v_cos"], ["rf", "v/cos"]),
    (
        ["-m", "path=rf", "sampler=lognorm", "sampler.m=-0.5,0,0.5"],
        ["rf/lognorm(-0.50,1.00)", "rf/lognorm(0.00,1.00)", "rf/lognorm(0.50,1.00)"],
    ),
    (["-m", "sampler=mode", "sampler.s=range(0,2)"], ["rf", "rf/mode(1.00)"]),
    (["-m", "variant=rf_mode_1.29,v_linear"], ["rf/mode(1.29)", "v/linear"]),
    (["-m", "variant=glob(edm*,exclude=*.*)"], ["edm/cos", "edm/rf"]),
    (["path/schedule=cosine", "path/target=v", "sampler=lognorm"], ["v/cos/lognorm(0.00,1.00)"]),
    (["experiment=demo", "variant=rf_cosmap"], ["rf/cosmap"]),
]


@pytest.mark.parametrize(("words", "variants"), GOOD, ids=lambda x: " ".join(x))
def test_each_job_reaches_the_task_with_its_own_config(monkeypatch, tmp_path, words, variants):
    code, seen = typed(monkeypatch, *words)
    assert code == 0
    assert [run_variant(cfg) for cfg in seen] == variants
    assert all("hydra" not in cfg for cfg in seen)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left <= {"runs", "runs/solo", "runs/solo/multirun.yaml"}


def test_one_failing_job_leaves_the_others(monkeypatch, capsys):
    def fails_for_seed_0(cfg):
        if cfg.seed == 0:
            raise RuntimeError("no more memory")

    code, seen = typed(monkeypatch, "-m", "seed=0,1", task=fails_for_seed_0)
    assert code == 1
    assert [cfg.seed for cfg in seen] == [0, 1]
    assert Run(run_folder(seen[0])).status["exception"] == "RuntimeError: no more memory"
    assert "no more memory" in capsys.readouterr().err


def test_an_interrupted_job_ends_the_command(monkeypatch, capsys):
    def stops(cfg):
        raise Interrupted("run x stopped at step 3 and is saved")

    code, seen = typed(monkeypatch, "-m", "seed=0,1", task=stops)
    assert (code, len(seen)) == (130, 1)
    assert "stopped at step 3 and is saved; the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--info", "defaults"]])
def test_hydras_own_questions_are_answered(monkeypatch, capsys, tmp_path, words):
    code, seen = typed(monkeypatch, *words, "backbone=dit")
    assert (code, seen) == (0, [])
    assert "dit" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_slurm_composes_and_stays_inside_runs():
    with config_loader() as loader:
        cfg = loader.load_configuration("train", ["hydra/launcher=submitit_slurm", "sweep=x"], RunMode.RUN)
    assert cfg.hydra.launcher.submitit_folder == "runs/x/.submitit/%j"
    assert cfg.hydra.run.dir == cfg.hydra.sweep.dir == "runs/x"
    assert cfg.hydra.output_subdir is None


@pytest.mark.parametrize("name", ["rf/mode(1.29)", "edm(0.60,1.20)"])
def test_names_are_those_that_sweeps_print(monkeypatch, name):
    _, seen = typed(monkeypatch, f"variant={names.file_name(name)}")
    assert [run_variant(cfg) for cfg in seen] == [name]


PICKLED = """
import runpy, sys
import cloudpickle, hydra

def main(**settings):
    def launch(one_job):
        assert one_job.__module__ == "__main__"
        with open("one_job", "wb") as file:
            cloudpickle.dump(one_job, file)
        return lambda: sys.exit(0)
    return launch

hydra.main = main
runpy.run_module("flowzoo.train", run_name="__main__", alter_sys=True)
"""


def test_a_launcher_can_send_a_job_elsewhere(monkeypatch) -> None:
    """As submitit does: pickled by value, since `python -m` names the module __main__."""
    words = ["data.source.size=128", "data.source.image_size=16"]
    assert subprocess.run([sys.executable, "-c", PICKLED, *words]).returncode == 0
    code = "import pickle; assert callable(pickle.load(open('one_job', 'rb')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
