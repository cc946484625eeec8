import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from PIL import Image

from flowzoo.encoders.clip import build_clip, save_clip
from flowzoo.metrics import train_clip
from flowzoo.metrics.clip_data import Augment, load_set
from flowzoo.metrics.extractor import Extractor
from flowzoo.metrics.train_clip import contrastive_loss, schedule, train
from flowzoo.runs.files import RunError


def units(n: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_distinct_captions_give_clips_loss() -> None:
    image, text, scale = units(6, 0), units(6, 1), torch.tensor(7.0, dtype=torch.float64)
    logits = scale * image @ text.T
    labels = torch.arange(6)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(image, text, scale, labels), expected)


def test_equal_captions_are_hits_and_not_negatives() -> None:
    captions = torch.tensor([0, 1, 0, 2, 1, 0])
    image, text = units(6, 0).requires_grad_(), units(3, 1)[captions]
    scale = torch.tensor(5.0, dtype=torch.float64)
    logits = (scale * image @ text.T).detach().requires_grad_()
    # The loss as a function of logits: bring them in through an identity text.
    loss = contrastive_loss(logits, torch.eye(6, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), captions)
    (slope,) = torch.autograd.grad(loss, logits)
    equal = captions[:, None] == captions[None, :]
    assert (slope[equal] <= 0).all()  # pulled together
    assert (slope[~equal] > 0).all()  # pushed apart
    # A batch of one caption has nothing to tell apart.
    same = torch.zeros(6, dtype=torch.long)
    loss = contrastive_loss(image, text[:1].expand(6, -1), scale, same)
    assert loss.abs() < 1e-12
    assert torch.autograd.grad(loss, image)[0].abs().max() < 1e-12


def test_schedule_rises_then_falls_to_zero() -> None:
    values = [schedule(step, 100, 10) for step in range(101)]
    assert values[:11] == sorted(values[:11])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert max(values) == pytest.approx(1.0)
    assert values[100] == pytest.approx(0.0, abs=1e-12)


def test_training_repeats(numbers: Any, architecture: dict[str, Any]) -> None:
    data = load_set(numbers, 16, workers=0)
    recipe = partial(
        train, data, architecture, Augment(), batch_size=32, lr=3e-3, weight_decay=0.0, warmup_steps=5, compile=False
    )
    model = recipe(steps=3, seed=0)
    again, other = recipe(steps=3, seed=0), recipe(steps=3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.visual.proj, other.visual.proj)


def test_infinite_loss_stops(numbers: Any, architecture: dict[str, Any]) -> None:
    data = load_set(numbers, 16, workers=0)
    with pytest.raises(FloatingPointError, match="lr=inf"):
        train(
            data,
            architecture,
            Augment(),
            steps=3,
            batch_size=8,
            lr=math.inf,
            weight_decay=0.0,
            warmup_steps=0,
            seed=0,
            compile=False,
        )


def test_run_writes_what_the_extractor_reads(tmp_path: Any, architecture: dict[str, Any]) -> None:
    shapes = {"_target_": "flowzoo.data.shapes.Shapes", "captions": "mix"}
    augment = {"_target_": "flowzoo.metrics.clip_data.Augment", "translate": 0.05, "halve": 0.3}
    measure = {"_target_": "flowzoo.metrics.quality.retrieval_top1", "_partial_": True, "n": 64, "groups": 2}
    recipe = {"steps": 150, "batch_size": 64, "lr": 3e-3, "weight_decay": 0.1, "warmup_steps": 20}
    wide = architecture | {"text_cfg": architecture["text_cfg"] | {"context_length": 32}}
    clip = {
        "architecture": wide,
        "source": {"size": 2000},
        "augment": augment,
        "recipe": recipe,
        "quality": {"what": "top-1", "measure": measure},
    }
    data = {"name": "shapes", "workers": 2, "source": shapes}
    output = tmp_path / "clip.safetensors"
    quality = train_clip.run(
        OmegaConf.create({"data": data, "clip": clip, "output": str(output), "seed": 0, "compile": False})
    )
    extractor = Extractor(output)
    assert extractor.quality == quality
    assert extractor.identity["name"] == "clip_shapes"
    assert quality["value"] > 10 / 64  # ten times chance


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
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, named: str
) -> None:
    monkeypatch.setattr(train_clip, "load_set", None)  # nothing may get there
    monkeypatch.setattr(sys, "argv", ["train_clip", *PHOTOS, word])
    with pytest.raises(SystemExit) as exit:
        train_clip.main()
    message = capsys.readouterr().err
    assert exit.value.code == 2
    assert named in message
    assert message.count("\n") == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["folder", "photos"]


def test_without_a_compiler_nothing_is_compiled(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = train_clip.composed([*PHOTOS, "compile=true"])
    monkeypatch.setattr(train_clip.torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RunError, match=r"^compile=true: there is no compiler here .no-such-.*allowed is compile=false"):
        train_clip.prepare(cfg)
    cfg.compile = False
    train_clip.prepare(cfg)


def test_the_network_follows_the_size_of_the_images(photos: Path) -> None:
    made = train_clip.prepare(train_clip.composed([*PHOTOS, "data.source.image_size=64"]))
    assert made.architecture["vision_cfg"]["image_size"] == 64
    assert made.source.size == (64, 64)


def test_any_data_has_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/tiles.yaml").write_text("name: tiles\nsource:\n  _target_: tiles.Tiles\nworkers: 0\n")
    own = train_clip.composed(["data=tiles"], str(tmp_path))
    assert own.clip == train_clip.composed(["data=folder", "data.source.path=x"]).clip
    assert train_clip.composed([]).clip.quality != own.clip.quality


def test_equal_captions_are_nothing_to_learn(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_clip, "train", None)
    words = ["data=folder", "data.source.path=photos/cat", "data.source.captions=text", "data.workers=0"]
    for path in (photos / "cat").glob("*.png"):
        path.with_suffix(".txt").write_text("a cat")
    with pytest.raises(RunError, match="all captions are the same"):
        train_clip.run(train_clip.composed([*words, "data.source.val_fraction=0.5"]))


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
