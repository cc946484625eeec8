"""Data is opened, and what only it knows is checked, before anything of a run is written."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowzoo import train
from flowzoo.data.source import measure
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.files import Refused, RunError
from flowzoo.sources import sources_of


class Tiles:
    """A source of one's own: its config names neither image_size nor anything else."""

    name, channels, fingerprint = "tiles", 3, "1"

    def __init__(self, split: str, pixels: int = 16, level: int | None = None) -> None:
        self.size, self.level = (pixels, pixels), level

    def __len__(self) -> int:
        return 70

    def images(self, indices: list[int]) -> np.ndarray:
        made = [np.random.RandomState(i).randint(0, 256, (3, *self.size)) for i in indices]
        return np.full_like(made, self.level, np.uint8) if self.level is not None else np.array(made, np.uint8)

    def captions(self, index: int) -> tuple[str, ...]:
        return (f"tile {index}",)

    def prompt(self, index: int) -> str:
        return self.captions(index)[0]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with conf/data/tiles.yaml; the class is importable as tiles.Tiles."""
    module = ModuleType("tiles")
    module.Tiles = Tiles  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tiles", module)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/tiles.yaml").write_text(
        "name: tiles\nsource:\n  _target_: tiles.Tiles\n  pixels: 16\n  level: null\n"
        "mean: null\nstd: null\ncache: device\nworkers: 0\n"
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "conf"


TINY = [
    *("text=words", "text.encoders.words.length=4", "backbone.depth=1", "backbone.width=32", "backbone.heads=1"),
    *("trainer.accelerator=cpu", "trainer.steps=2", "trainer.batch_size=4", "trainer.val_samples=4"),
    *("evaluation.samples=8", "evaluation.weights=[ema]", "evaluation.settings=[{steps: 2, guidance: 1.0}]"),
]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def command(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["train", *words])
        with pytest.raises(SystemExit) as exit:
            train.main()
        return int(exit.value.code or 0)

    return command


def test_a_source_of_ones_own_says_its_size_and_is_scored_without_fid(
    own: Path, typed: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(f"--config-dir={own}", "data=tiles", *TINY) == 0
    out = capsys.readouterr()
    assert "70 to train on" in out.out
    assert "FID is not given: 8 images in 64 dimensions" in out.err
    assert "was trained on shapes and has not seen images like tiles" in out.err
    (folder,) = Path("runs/solo").iterdir()
    header, row = (folder / "results.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert cells["fid"] == ""
    assert float(cells["clip"])
    assert list(folder.glob("samples/grid.png"))
    assert "8 images in 64 dimensions" in (folder / "extractor.json").read_text()


@pytest.mark.parametrize("words", [[], ["seed=0,1", "-m"]], ids=["one", "two"])
def test_what_a_command_opens_before_it_begins_is_for_its_first_run(
    own: Path, typed: Callable[..., int], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    opened: list[str] = []
    real = Tiles.__init__

    def count(self: Tiles, split: str, **settings: Any) -> None:
        opened.append(split)
        real(self, split, **settings)

    monkeypatch.setattr(Tiles, "__init__", count)
    assert typed(f"--config-dir={own}", "data=tiles", *TINY, *words) == 0
    assert opened == ["train", "val"] * max(1, len(words))


BAD = [
    (["data.source.pixels=15"], "backbone.patch_size=2: allowed is a divisor of 15"),
    (["+data.source.wrong=1"], "wrong"),
    (["data.mean=[0.5,0.5]"], "data.mean=[0.5, 0.5]: allowed is null, or a number for each of 3 channels"),
    (["data.std=[1,0,1]"], "data.std=[1, 0, 1]: allowed is null or a list, each a number greater than 0"),
    (["metric=[fid,geneval]", "metric.geneval.prompts=0"], "metric.geneval.prompts=0 is out of range"),
    (["data.mean=0.5"], "data.mean=0.5: allowed is null or a list"),
    (["data=folder", "data.source.path={}"], "holds no images"),
    (["data=folder", "data.source.path={}", "data.source.background=blak"], "background='blak'"),
    (["-m", "seed=0,1", "data=folder", "data.source.path={}", "data.source.captions=x"], "captions='x'"),
    (["trainer=stacked", "data=folder", "data.source.path={}"], "holds no images"),
]


@pytest.mark.parametrize(("words", "named"), BAD, ids=lambda x: str(x))
def test_what_the_data_refuses_is_one_line_and_leaves_nothing(
    own: Path, typed: Callable[..., int], capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    (own.parent / "empty").mkdir()
    words = [word.format(own.parent / "empty") for word in words]
    data = [] if any("data=folder" in word for word in words) else ["data=tiles"]
    assert typed(f"--config-dir={own}", *words, *data, *TINY, "autoencoder=pixels", "backbone.patch_size=2") == 2
    message = capsys.readouterr().err
    assert named in message
    assert message.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []


def test_a_class_that_is_no_source_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with config_loader(str(own)) as loader:
        (cfg,) = compose_jobs(loader, "train", ["data=tiles"], multirun=False)
    monkeypatch.delattr(Tiles, "prompt")
    with pytest.raises(Refused, match="data tiles: Tiles has no prompt"):
        sources_of(cfg)


def test_images_of_one_value_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="data tiles: channel 0 is 7 in every pixel of the 70 images"):
        measure(Tiles("train", level=7))
    assert min(measure(Tiles("train"))[1]) > 0.2


def test_demo_takes_images_of_ones_own(tmp_path: Path) -> None:
    for i in range(60):
        path = tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(path)
    with config_loader() as loader:
        words = ["experiment=demo", "data=folder", f"data.source.path={tmp_path / 'photos'}"]
        (cfg,) = compose_jobs(loader, "train", words, multirun=False)
    assert sum(map(len, sources_of(cfg))) == 60
