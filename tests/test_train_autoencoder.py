"""`python -m flowzoo.train_autoencoder`: what it writes, what it goes on from, what it refuses."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flowzoo import train_autoencoder
from flowzoo.autoencoders.kl import KLAutoencoder
from flowzoo.runs.signals import Notice
from flowzoo.runs.single import composed
from flowzoo.runs.store import Interrupted, Run

SMALL = [
    *("data.source.image_size=16", "data.source.size=400", "data.workers=0"),
    *("network.widths=[8,16]", "network.factor=2", "network.channels=4", "trainer.batch_size=16"),
    *("trainer.steps=60", "trainer.val_every=30", "trainer.val_samples=32", "optimizer.warmup_steps=5"),
    *("optimizer.lr=3e-3", "quality.images=64", "ema.every=1", "ema.decay=0.8"),
]


def train(tmp_path: Path, *words: str) -> dict[str, Any]:
    cfg = composed("train_autoencoder", [*SMALL, f"output={tmp_path / 'kl.safetensors'}", *words])
    return train_autoencoder.run(cfg)


def folder(tmp_path: Path) -> Run:
    (path,) = tmp_path.glob("kl-*")
    return Run.open(path)


def test_run_writes_what_the_autoencoder_reads(tmp_path: Path) -> None:
    quality = train(tmp_path)
    autoencoder = KLAutoencoder(3, tmp_path / "kl.safetensors")
    assert (autoencoder.factor, autoencoder.channels) == (2, 4)
    assert autoencoder.about["quality"] == quality
    # The best image of one colour is at about 12 dB on shapes.
    assert quality["psnr"] > 15
    assert folder(tmp_path).state == "done"
    shown = Image.open(tmp_path / "kl.png")
    assert shown.size[1] == 2 * (16 + 2) + 2  # a row of images, a row of reconstructions
    # An average of the weights is written, and no part of the critic or of Lightning.
    content = torch.load(folder(tmp_path).path / "checkpoints" / "last.ckpt", weights_only=True)
    shadow, scale = content["ema"]["shadow"], 1 / (1 - 0.8**60)
    written = load_file(tmp_path / "kl.safetensors")
    assert {f"network.{name}" for name in written} == shadow.keys()
    for name, x in written.items():
        torch.testing.assert_close(x, (shadow[f"network.{name}"] * scale).half())


@pytest.mark.parametrize("words", [[], ["critic=patch", "critic.start=2", "perceptual=clip"]], ids=["plain", "all"])
def test_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    short = ["trainer.steps=6", "trainer.val_every=6", *words]
    train(tmp_path, *short)
    undisturbed = load_file(tmp_path / "kl.safetensors")
    again = tmp_path / "again"
    with monkeypatch.context() as patch:
        patch.setattr(Notice, "given", lambda self, trainer: trainer.global_step == 4)
        with pytest.raises(Interrupted, match="stopped at step 4 of 6 and is saved"):
            train(again, *short)
    assert folder(again).state == "preempted"
    assert not (again / "kl.safetensors").exists()
    train(again, *short)
    found = load_file(again / "kl.safetensors")
    assert all(torch.equal(found[name], x) for name, x in undisturbed.items())
    assert folder(again).status["attempt"] == 2


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_bit_for_bit(tmp_path: Path) -> None:
    words = [word for word in SMALL if not word.startswith(("trainer.steps", "trainer.val_every"))]
    command = [
        sys.executable,
        Path(__file__).with_name("killed.py"),
        tmp_path,
        *words,
        "critic=patch",
        "critic.start=1",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_config_is_another_training(tmp_path: Path) -> None:
    """What changes no weight, such as the output or the measured quality, is none."""
    folders = set()
    for words in (
        [],
        ["loss.kl=1e-4"],
        ["critic=patch", "critic.start=1"],
        ["critic=patch", "critic.start=0"],
        ["seed=1"],
    ):
        folders.add(prepared(tmp_path, *words).folder)
    assert len(folders) == 5
    for words in (["quality.images=3"], ["trainer.log_every=3"], ["loss.kl=0.000001"]):
        assert prepared(tmp_path, *words).folder == prepared(tmp_path).folder


def test_the_file_of_another_training_is_kept(tmp_path: Path) -> None:
    (tmp_path / "kl.safetensors").write_text("hours of work")
    with pytest.raises(ValueError, match="there is a file of another training"):
        prepared(tmp_path)
    assert (tmp_path / "kl.safetensors").read_text() == "hours of work"


def test_a_critic_that_would_never_learn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"critic\.start=5000: allowed is less than trainer\.steps="):
        prepared(tmp_path, "critic=patch")


def prepared(tmp_path: Path, *words: str) -> train_autoencoder.Prepared:
    cfg = composed("train_autoencoder", [*SMALL, f"output={tmp_path / 'kl.safetensors'}", *words])
    return train_autoencoder.prepare(cfg)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(40):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((18, 18, 3), 6 * i, np.uint8)).save(path)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)


PHOTOS = ["data=folder", "data.source.path=photos", "data.workers=0"]
BAD = [
    ("data.source.path=nowhere", "data.source.path=nowhere: there is no such file or folder"),
    ("network.factor=3", "network.factor=3: allowed is 2, 4, 8"),
    ("network.factor=8", "widths=[32, 64, 128]: allowed are 4 numbers for factor=8"),
    ("network.widths=[32,64,100]", "allowed are multiples of 8"),
    ("network.channels=0", "network.channels=0: allowed is an integer of at least 1"),
    ("data.source.image_size=30", "network.factor=4: allowed is a divisor of 30 x 30"),
    ("loss.norm=l3", "loss.norm=l3: allowed is l1, l2"),
    ("loss.kl=-1", "loss.kl=-1: allowed is a number of at least 0"),
    ("trainer.devices=2", "trainer.devices=2: allowed is 1"),
    ("trainer.precision=16-mixed", "trainer.precision=16-mixed"),
    ("+trainer.wrong=1", "trainer.wrong=1: nothing reads trainer.wrong"),
    ("+network.wrong=1", "network.wrong=1: nothing reads network.wrong"),
    ("+loss.wrong=1", "loss.wrong: "),
    ("perceptual=lpips", "perceptual.weights is missing"),
    ("perceptual=wrong", "Could not find 'perceptual/wrong'"),
    ("output=folder", "output=folder: this is a folder"),
    ("output=kl.png", "output=kl.png: allowed is the name of a file that ends in .safetensors"),
    ("trainer=stacked", "trainer=stacked: one autoencoder is trained at a time"),
    ("experiment=demo", "Could not override 'experiment'. No match in the defaults list.\n"),
    ("seed=-1", "seed=-1"),
]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(("word", "named"), BAD)
def test_what_cannot_train_is_one_line_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], word: str, named: str
) -> None:
    monkeypatch.setattr(train_autoencoder, "train_single", None)  # nothing may get there
    assert named in refused(train_autoencoder.main, *PHOTOS, word)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["folder", "photos"]


@pytest.mark.usefixtures("photos")
def test_divergence_is_told_with_the_rate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["data.source.image_size=16", "network.widths=[8,8,8]", "trainer.batch_size=4", "trainer.steps=20"]
    rate = ["optimizer.lr=1e30", "optimizer.warmup_steps=0", "output=kl.safetensors"]
    monkeypatch.setattr(sys, "argv", ["train_autoencoder", *PHOTOS, *tiny, *rate])
    with pytest.raises(SystemExit) as exit:
        train_autoencoder.main()
    assert exit.value.code == 1
    assert "lower optimizer.lr=1e+30" in capsys.readouterr().err
    assert not Path("kl.safetensors").exists()
