import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import load_file

from flowzoo import train_clip
from flowzoo.encoders.clip import build_clip, save_clip
from flowzoo.metrics.extractor import Extractor
from flowzoo.runs.files import RunError
from flowzoo.runs.signals import Notice
from flowzoo.runs.single import composed as compose
from flowzoo.runs.store import Diverged, Interrupted, Run


def composed(words: Sequence[str], config_dir: str | None = None) -> DictConfig:
    return compose("train_clip", words, config_dir, train_clip.FALLBACK)


@pytest.fixture
def shapes(tmp_path: Path, architecture: dict[str, Any]) -> Callable[..., DictConfig]:
    """The config of a training of seconds."""

    def config(**recipe: Any) -> DictConfig:
        told = {"steps": 150, "batch_size": 64, "lr": 3e-3, "weight_decay": 0.1, "warmup_steps": 20} | recipe
        augment = {"_target_": "flowzoo.metrics.clip_data.Augment", "translate": 0.05, "halve": 0.3}
        measure = {"_target_": "flowzoo.metrics.quality.retrieval_top1", "_partial_": True, "n": 64, "groups": 2}
        clip = {
            "architecture": architecture | {"text_cfg": architecture["text_cfg"] | {"context_length": 32}},
            "source": {"size": 2000},
            "augment": augment,
            "recipe": told,
            "quality": {"what": "top-1", "measure": measure},
        }
        source = {"_target_": "flowzoo.data.shapes.Shapes", "captions": "mix"}
        data = {"name": "shapes", "workers": 0, "source": source}
        output = str(tmp_path / "clip.safetensors")
        return OmegaConf.create({"data": data, "clip": clip, "output": output, "seed": 0, "compile": False})

    return config


def folder(tmp_path: Path) -> Run:
    (path,) = tmp_path.glob("clip-*")
    return Run.open(path)


def test_run_writes_what_the_extractor_reads(tmp_path: Path, shapes: Callable[..., DictConfig]) -> None:
    quality = train_clip.run(shapes())
    output = tmp_path / "clip.safetensors"
    extractor = Extractor(output)
    assert extractor.quality == quality
    assert extractor.identity["name"] == "clip_shapes"
    assert quality["value"] > 10 / 64  # ten times chance
    assert folder(tmp_path).state == "done"
    assert [r["step"] for r in folder(tmp_path).metrics() if "val_loss_raw" in r] == [150]


def test_the_same_command_goes_on_and_another_config_begins_anew(
    tmp_path: Path, shapes: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, output = shapes(steps=6, batch_size=16), tmp_path / "clip.safetensors"
    train_clip.run(cfg)
    undisturbed = load_file(output)
    shutil.rmtree(folder(tmp_path).path)
    output.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Notice, "given", lambda self, trainer: trainer.global_step == 4)
        with pytest.raises(Interrupted, match="stopped at step 4 of 6 and is saved"):
            train_clip.run(cfg)
    assert folder(tmp_path).state == "preempted"
    assert not output.exists()
    train_clip.run(cfg)
    again = load_file(output)
    assert again.keys() == undisturbed.keys()
    assert all(torch.equal(again[name], undisturbed[name]) for name in undisturbed)
    assert folder(tmp_path).status["attempt"] == 2
    first = folder(tmp_path).path
    with pytest.raises(ValueError, match="there is a file of another training"):
        train_clip.run(shapes(steps=7, batch_size=16))
    output.unlink()
    train_clip.run(shapes(steps=7, batch_size=16))
    assert len(list(tmp_path.glob("clip-*"))) == 2
    assert Run(first).metrics()[-1]["step"] == 6


def test_divergence_is_told(tmp_path: Path, shapes: Callable[..., DictConfig]) -> None:
    cfg = shapes(steps=3, batch_size=16, lr=1e38, warmup_steps=0)
    for _ in range(2):  # and once more, without training
        with pytest.raises(Diverged, match="diverged at step"):
            train_clip.run(cfg)
    assert folder(tmp_path).state == "diverged"
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images of two classes in photos/."""
    for i in range(40):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 6 * i, np.uint8)).save(path)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


PHOTOS = ["data=folder", "data.source.path=photos", "data.source.val_fraction=0.5", "data.workers=0"]
BAD = [
    ("data.source.path=nowhere", "no such directory or zip: nowhere"),
    ("clip.recipe.steps=0", "clip.recipe.steps=0: allowed is an integer of at least 1"),
    ("+clip.recipe.wrong=1", "clip.recipe.wrong"),
    ("output=folder", "output=folder: this is a folder"),
    ("output=photos/cat/0.png/clip.safetensors", "0.png is a file"),
    ("data.source.image_size=30", "patch_size=4: allowed is a divisor of 30"),
    ("data.source.image_size=[16,24]", "images are 16 x 24 pixels; allowed for the small CLIP are squares"),
    ("clip.architecture.vision_cfg.image_size=64", "image_size=64: allowed is null, or the 32 of the images"),
    ("clip.architecture.text_cfg.heads=3", "clip.architecture: "),
    ("+clip.augment.wrong=1", "clip.augment: "),
    ("+data.source.wrong=1", "unexpected keyword argument 'wrong'"),
    ("seed=-1", "seed=-1"),
    ("sed=1", "sed"),
]


@pytest.mark.parametrize(("word", "named"), BAD)
def test_what_cannot_train_is_one_line_before_anything_is_read(
    photos: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], word: str, named: str
) -> None:
    monkeypatch.setattr(train_clip, "load_set", None)  # nothing may get there
    assert named in refused(train_clip.main, *PHOTOS, word)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["folder", "photos"]


def test_without_a_compiler_nothing_is_compiled(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed([*PHOTOS, "compile=true"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RunError, match=r"^compile=true: there is no compiler here .no-such-.*allowed is compile=false"):
        train_clip.prepare(cfg)
    cfg.compile = False
    train_clip.prepare(cfg)


def test_the_network_follows_the_size_of_the_images(photos: Path) -> None:
    made = train_clip.prepare(composed([*PHOTOS, "data.source.image_size=64"]))
    assert made.architecture["vision_cfg"]["image_size"] == 64
    assert made.source.size == (64, 64)


def test_any_data_has_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/tiles.yaml").write_text("name: tiles\nsource:\n  _target_: tiles.Tiles\nworkers: 0\n")
    own = composed(["data=tiles"], str(tmp_path))
    assert own.clip == composed(["data=folder", "data.source.path=x"]).clip
    assert composed([]).clip.quality != own.clip.quality


def test_equal_captions_are_nothing_to_learn(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["data=folder", "data.source.path=photos/cat", "data.source.captions=text", "data.workers=0"]
    for path in (photos / "cat").glob("*.png"):
        path.with_suffix(".txt").write_text("a cat")
    with pytest.raises(RunError, match="all captions are the same"):
        train_clip.run(composed([*words, "data.source.val_fraction=0.5"]))


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, architecture: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = tmp_path / "clip.safetensors", build_clip(architecture)
    save_clip(model, path, architecture=architecture, about={"name": "first"})
    before = path.read_bytes()

    def full(tensors: object, part: Path, metadata: object) -> None:
        part.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_clip(model, path, architecture=architecture, about={"name": "second"})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["clip.safetensors"]
