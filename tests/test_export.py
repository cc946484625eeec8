"""`python -m flowzoo.export`: what it writes computes what the run's network does; what cannot be held is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load_file

from flowzoo import train
from flowzoo.backbones.sd3_weights import sd3_text
from flowzoo.build import load
from flowzoo.encoders.text import Text, TextSpec
from flowzoo.export import check, export
from flowzoo.job import Model
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.files import RunError
from flowzoo.runs.identity import run_folder
from flowzoo.runs.trained import load_run
from flowzoo.sampling.generate import Generator, start_noise
from flowzoo.sampling.grid import Common
from flowzoo.sampling.solver import Recombine, Solver
from flowzoo.training.checkpoint import plain
from flowzoo.training.ema import AVERAGE

diffusers = pytest.importorskip("diffusers")

WORDS = [
    *("text=clip_words", "data.source.image_size=16", "data.source.size=64", "autoencoder=pixels"),
    *("backbone.depth=2", "backbone.width=32", "backbone.heads=2", "trainer.steps=1", "trainer.batch_size=4"),
    *("trainer.val_every=1", "trainer.val_samples=4", "evaluation=quick", "evaluation.samples=4"),
    "evaluation.settings=[{steps: 1, guidance: 1}]",
]


def composed(*words: str):
    with config_loader() as loader:
        return compose_jobs(loader, "train", [*WORDS, *words], multirun=False)[0]


def trained(runs: Path, *words: str) -> Path:
    """A run's folder, with weights that hide nothing: those of a training begin at zero."""
    cfg = composed(f"runs={runs}", *words)
    train.run(cfg)
    folder = run_folder(cfg)
    for path in (folder / "checkpoints").iterdir():
        kept = torch.load(path, weights_only=True)
        draw = torch.Generator().manual_seed(0)
        shapes = {name: x.shape for name, x in kept["state_dict"].items()}
        raw, ema = ({name: 0.2 * torch.randn(shape, generator=draw) for name, shape in shapes.items()} for _ in "12")
        torch.save({**kept, "state_dict": raw, "ema": {AVERAGE: plain(ema)}}, path)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs"), "path=rf")


def exported(run: Path, out: Path, *words: str) -> Path:
    told = load_run("export", [f"run={run}", f"out={out}", *words])
    check(told)
    export(told)
    return out


def inputs(model: Model) -> tuple[torch.Tensor, torch.Tensor, Text]:
    text = model.text.encode(["a red circle", "two large blue stars on a white background", ""])
    return start_noise(0, 0, 3, model.latent_shape), torch.tensor([0.0, 437.5, 1000.0]), text


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_diffusers_computes_what_the_run_does(run: Path, tmp_path: Path, weights: str) -> None:
    out = exported(run, tmp_path / "new" / "folder", "format=diffusers", f"weights={weights}")
    theirs = diffusers.SD3Transformer2DModel.from_pretrained(out)
    model = load(run, weights=weights)
    z, label, text = inputs(model)
    tokens, pooled = sd3_text(text)
    with torch.no_grad():
        expected = model.backbone(z, label, text)
        out_theirs = theirs(z, tokens, pooled, label).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(out_theirs, expected, rtol=1e-5, atol=1e-5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]


def test_images_of_diffusers_scheduler_are_ours(run: Path, tmp_path: Path) -> None:
    out = exported(run, tmp_path / "out", "format=diffusers")
    theirs = diffusers.SD3Transformer2DModel.from_pretrained(out)
    model, steps, scale = load(run), 4, 2.5
    z, _, text = inputs(model)
    null = model.text.null(3)
    solver = Solver(Recombine(), Common())
    generator = Generator(model.backbone.requires_grad_(False), model.formulation, solver, torch.device("cpu"), None)
    expected = generator(z, text, null, steps, scale).latents
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)])
    for t in scheduler.timesteps:
        with torch.no_grad():
            cond, away = (theirs(z, *sd3_text(told), t.expand(3)).sample for told in (text, null))
        z = scheduler.step(away + scale * (cond - away), t, z).prev_sample
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)


def test_safetensors_and_their_json_make_the_network_bit_for_bit(run: Path, tmp_path: Path) -> None:
    out = exported(run, tmp_path / "net.safetensors", "format=safetensors")
    about = json.loads(out.with_suffix(".json").read_text())
    text = TextSpec(**{key: tuple(value) for key, value in about["text"].items()})
    net = instantiate(about["backbone"], channels=about["channels"], size=tuple(about["size"]), text=text)
    net.load_state_dict(load_file(out), strict=True)
    model = load(run)
    with torch.no_grad():
        assert torch.equal(net(*inputs(model)), model.backbone(*inputs(model)))
    assert about["formulation"]["name"] == "rf"
    assert (about["weights"], about["checkpoint"], about["run"]) == ("ema", "best", run.name)
    own = start_noise(1, 0, 2, model.latent_shape)
    scale, shift = (torch.tensor(about["autoencoder"][key])[:, None, None] for key in ("scale", "shift"))
    assert torch.equal(model.autoencoder.autoencoder.decode(own * scale + shift), model.autoencoder.decode(own))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["path=v_cos"], "diffusers samples .* by rectified flow.*this run is v/cos"),
        (["path/target=x0"], "this run is x0/rf"),
        (["backbone=mmdit3"], "holds an MMDiT of two streams, image and text, and no split_text=true"),
        (["backbone=dit"], "and no DiT"),
    ],
)
def test_what_diffusers_cannot_hold_is_refused_and_leaves_as_safetensors(
    tmp_path: Path, words: list[str], reason: str
) -> None:
    run = trained(tmp_path / "runs", *words)
    with pytest.raises(RunError, match=f"format=diffusers: .*{reason}; allowed is format=safetensors"):
        exported(run, tmp_path / "out", "format=diffusers")
    assert not (tmp_path / "out").exists()
    exported(run, tmp_path / "net.safetensors", "format=safetensors")


def test_diffusers_that_is_not_there_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RunError, match=r"needs the package diffusers: pip install 'flowzoo\[sd3\]'"):
        exported(run, tmp_path / "out", "format=diffusers")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["format=diffusers"], "out= is missing: allowed is a new folder"),
        (["format=safetensors"], "out= is missing: allowed is a new file"),
        (["out=new"], "format=null: allowed is diffusers, safetensors"),
        (["format=onnx", "out=new"], "format=onnx: allowed is diffusers, safetensors"),
        (["format=diffusers", "out=full"], "out=full: there is full already; allowed is a new folder"),
        (["format=diffusers", "out=full/file"], "out=full/file: there is full/file already"),
        (["format=diffusers", "out=full/file/new"], "out=full/file/new: .*full/file is no folder"),
        (["format=safetensors", "out=new"], "out=new: allowed is the name of a safetensors file"),
        (["format=safetensors", "out=old.safetensors"], "there is old.json already; allowed is a new file"),
    ],
)
def test_a_place_that_is_not_free_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "old.json").touch()
    with pytest.raises(ValueError, match=reason):
        check(load_run("export", [f"run={run}", *words]))
    (tmp_path / "empty").mkdir()
    check(load_run("export", [f"run={run}", "format=diffusers", "out=empty"]))
