"""Images of one rectangular shape are trained on, scored and sampled by every backbone, alone and stacked."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from flowzoo import train
from flowzoo.build import load
from flowzoo.prompted import sample_prompts
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.identity import run_folder

H, W = 8, 12
TINY = [
    *("data=folder", "data.source.path=photos", "data.source.val_fraction=0.5", f"data.source.image_size=[{H},{W}]"),
    *("text=words", "text.encoders.words.length=4", "backbone.depth=1", "backbone.width=32", "backbone.heads=1"),
    *(
        "autoencoder=pixels",
        "backbone.patch_size=4",
        "trainer.accelerator=cpu",
        "trainer.steps=2",
        "trainer.batch_size=4",
    ),
    *("trainer.val_samples=4", "evaluation.samples=4", "evaluation.weights=[ema]", "metric=[clip]"),
    "evaluation.settings=[{steps: 2, guidance: 1.0}]",
]


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[DictConfig]]:
    for i in range(40):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (20, 20, 3)).astype(np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)

    def compose(*words: str) -> list[DictConfig]:
        with config_loader() as loader:
            return compose_jobs(loader, "train", [*TINY, *words], multirun=True)

    return compose


def is_whole(folder: Path) -> None:
    assert json.loads((folder / "data.json").read_text())["size"] == [H, W]
    with Image.open(folder / "samples/grid.png") as grid:
        assert grid.size == (4 * (W + 2) + 2, H + 4)  # width first
    header, row = (folder / "results.csv").read_text().splitlines()
    assert float(dict(zip(header.split(","), row.split(","), strict=True))["clip"])
    images = sample_prompts(load(folder), ["a photo of a cat"], n=2, steps=2)
    assert images.shape == (2, 3, H, W)


@pytest.mark.parametrize("backbone", ["dit", "crossdit", "uvit", "mmdit", "mmdit3"])
def test_a_run_alone(composed: Callable[..., list[DictConfig]], backbone: str) -> None:
    (cfg,) = composed(f"backbone={backbone}")
    train.run(cfg)
    is_whole(run_folder(cfg))


@pytest.mark.parametrize("backbone", ["uvit", "mmdit"])
def test_runs_in_a_stack(composed: Callable[..., list[DictConfig]], backbone: str) -> None:
    cfgs = composed(f"backbone={backbone}", "path=rf,v_cos", "trainer=stacked", "stack.processes=1")
    assert train.run_together(cfgs) == 0
    for cfg in cfgs:
        is_whole(run_folder(cfg))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["backbone.patch_size=8"], "backbone.patch_size=8: allowed is a divisor of 8 and 12, the image size"),
        (["backbone.patch_size=3"], "backbone.patch_size=3: allowed is a divisor of 8 and 12"),
        (
            ["autoencoder=pca", "autoencoder.factor=8"],
            "autoencoder.factor=8: allowed is a divisor of 8 and 12, the image size",
        ),
        (
            ["autoencoder=pca", "autoencoder.factor=2", "backbone.patch_size=4"],
            "a divisor of 4 and 6, the image size 8 and 12 over autoencoder.factor=2",
        ),
        (["data.source.image_size=[8,8]"], "image_size=[8, 8]: allowed is an integer of at least 1 or [H, W]"),
        (["data.source.image_size=[8,0]"], "image_size=[8, 0]: allowed is"),
        (["data.source.image_size=[8,12,3]"], "image_size=[8, 12, 3]: allowed is"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    composed: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *TINY, *words])
    with pytest.raises(SystemExit) as exit:
        train.main()
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["photos"]
