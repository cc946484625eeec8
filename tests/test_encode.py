"""`python -m flowzoo.encode` and `data=latents`: equal to encoding on the fly, whole after any kill, refusals."""

import json
import pickle
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tars
import torch
from prepared import Prepared

from flowzoo import encode, train
from flowzoo.autoencoders.kl import save_kl
from flowzoo.autoencoders.kl_network import KLNetwork
from flowzoo.build import jobs_of
from flowzoo.data import encoded
from flowzoo.data.encoded import EncodedSet
from flowzoo.data.loader import Batch
from flowzoo.encoders.text import TextEncoders
from flowzoo.encoders.words import WordEncoder
from flowzoo.job import Stack
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.files import Refused, RunError
from flowzoo.runs.identity import run_folder
from flowzoo.runs.single import composed
from flowzoo.training.fit import program_of

SIZE = ["data.source.size=230", "data.source.image_size=16"]
SHAPES = ["data=shapes", *SIZE, "data.workers=0", "accelerator=cpu", "images_per_shard=64"]
TEXT = ["text=clip_words", "text.encoders.clip.length=12", "text.encoders.words.length=9"]
RUN = ["backbone.depth=1", "backbone.width=32", "backbone.heads=1", "trainer.accelerator=cpu", "trainer.steps=3"]
RUN += ["trainer.batch_size=12", "trainer.val_samples=8", "evaluation.samples=8", "evaluation.reference=8"]
RUN += [
    "evaluation.settings=[{steps: 1, guidance: 1.0}]",
    "evaluation.weights=[ema]",
    "metric=[clip]",
    "data.workers=0",
]


def text_of(words: Sequence[str]) -> list[str]:
    """That of these tests, where the words say no other."""
    return [] if any(word.startswith("text=") for word in words) else TEXT


def encoded_by(*words: str) -> dict[str, Any]:
    return encode.run(composed("encode", [*SHAPES, *text_of(words), *words]))


def config(*words: str) -> Any:
    with config_loader() as loader:
        (cfg,) = compose_jobs(loader, "train", [*RUN, *text_of(words), *words], False)
    return cfg


def first_batches(cfg: Any, n: int = 6) -> tuple[Any, list[Batch]]:
    """The task of a run, and what it gets of the first steps."""
    (job,) = jobs_of([cfg])
    task: Any = program_of(Stack([job]), None).task
    task.begin(torch.device("cpu"), 0, 1)
    return task, [batch for batch, _ in zip(task.batches(0), range(n), strict=False)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def kl(tmp_path_factory: pytest.TempPathFactory) -> str:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = KLNetwork(3, 4, 4, (8, 8, 8), blocks=1)
    path = tmp_path_factory.mktemp("kl") / "kl.safetensors"
    save_kl(network, path, {})
    return f"autoencoder.weights={path}"


@pytest.mark.parametrize("cache", ["device", "none"])
@pytest.mark.parametrize("kind", ["pca", "pixels", "kl"])
def test_training_gets_what_encoding_on_the_fly_gives(here: Path, cache: str, kind: str, kl: str) -> None:
    words = [f"autoencoder={kind}", *([kl] if kind == "kl" else [])]
    plain = config("data=shapes", *SIZE, f"data.cache={cache}", "data.mean=null", "data.std=null", *words)
    task, fly = first_batches(plain)
    for dtype in ("float32", "float16"):
        encoded_by(f"out={dtype}", f"dtype={dtype}", *words)
        again, kept = first_batches(config("data=latents", f"data.source.path={dtype}", f"data.cache={cache}", *words))
        assert again.autoencoder.fingerprint == task.autoencoder.fingerprint
        scale = task.autoencoder._scale
        for step, ((a,), (b,)) in enumerate(zip(fly, kept, strict=True)):
            x, eps, told, *records = task.inputs((a,), step)
            y, eps_, told_, *records_ = again.inputs((b,), step)
            for one, other in zip(
                (eps, *told.tokens, *told.pooled, *records),
                (eps_, *told_.tokens, *told_.pooled, *records_),
                strict=True,
            ):
                assert torch.equal(one, other)
            if dtype == "float32":
                assert torch.equal(x, y)
            else:  # half precision's rounding, and its smallest steps near 0
                assert ((x - y).abs() <= 2**-11 * 1.001 * x.abs() + 2**-24 / scale).all()
                assert not torch.equal(x, y)


def test_gain_and_the_spectrum_belong_to_the_run(here: Path) -> None:
    encoded_by("out=set", "dtype=float32", "autoencoder=pca")
    seen = ["autoencoder=pca", "autoencoder.gain=0.5", "autoencoder.spectrum_power=0.5"]
    _, ((a,), *_) = first_batches(config("data=latents", "data.source.path=set", "data.cache=none", *seen))
    task, ((b,), *_) = first_batches(config("data=shapes", *SIZE, "data.cache=none", *seen))
    assert torch.equal(a.images, task.autoencoder.encode(b.images))
    jobs = [
        jobs_of([config(*data, "path=edm", "sigma_data=data", "autoencoder=pca")])[0]
        for data in (["data=latents", "data.source.path=set"], ["data=shapes", *SIZE])
    ]
    assert jobs[0].about_data["deviation"] == pytest.approx(jobs[1].about_data["deviation"], rel=1e-12)


def test_a_run_on_latents_ends_as_the_run_on_images(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoded_by("out=set", "dtype=float32", "autoencoder=pca")
    found = []
    for data in (["data=latents", "data.source.path=set", "data.cache=device"], ["data=shapes", *SIZE]):
        cfg = config(*data, "autoencoder=pca")
        train.run(cfg)
        state = torch.load(run_folder(cfg) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        rows = (run_folder(cfg) / "results.csv").read_text().splitlines()
        found.append((state, [float(rows[1].split(",")[rows[0].split(",").index(key)]) for key in ("clip", "nfe")]))
    assert all(torch.equal(x, found[1][0][name]) for name, x in found[0][0].items())
    assert found[0][1] == found[1][1]
    assert "16 x 4 x 4 in float32, of shapes" in " ".join(capsys.readouterr().out.split())


def files(folder: Path) -> dict[str, bytes]:
    """What lies there. The statistics' header has two entries, which safetensors writes in any order."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".lock")}
    return found | {"autoencoder.safetensors": bytes(sorted(found["autoencoder.safetensors"]))}


def test_any_number_of_processes_makes_the_same_files_and_a_second_time_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoded_by("out=one", "text=words")
    encoded_by("out=two", "text=words", "processes=2", "batch_size=50")
    assert files(here / "one") == files(here / "two")
    before = {path: path.stat().st_mtime_ns for path in (here / "one").glob("*.safetensors")}
    encoded_by("out=one", "text=words")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "all of which are as they were written" in capsys.readouterr().out
    damaged = here / "one" / "train-00002.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-5] ^= 1
    damaged.write_bytes(data)
    encoded_by("out=one", "text=words")
    assert files(here / "one") == files(here / "two")


def test_killed_at_random_nothing_is_lost_or_doubled(here: Path, prepared: Prepared) -> None:
    words = [*SHAPES, "text=words", "autoencoder=pca", "images_per_shard=4", "batch_size=2", "processes=null"]
    assert prepared.start(["-m", "flowzoo.encode", *words, "out=whole"]).wait() == 0
    draw, kills = random.Random(0), 0

    def there() -> int:
        return len(list((here / "killed").glob("*.safetensors")))

    for _ in range(20):
        killed, until = prepared.start(["-m", "flowzoo.encode", *words, "out=killed"]), there() + draw.randint(1, 40)
        while killed.poll() is None and (kills == 5 or there() < until):
            time.sleep(0.001)
        if killed.poll() is None:
            killed.send_signal(signal.SIGKILL)
            kills += 1
        if killed.wait() == 0:
            break
    assert kills >= 2
    assert (here / "killed" / "index.json").is_file()
    assert files(here / "killed") == files(here / "whole")


def test_broken_images_have_the_caption_of_what_stands_for_them(here: Path) -> None:
    samples = [tars.sample(i) for i in range(60)]
    samples[7]["png"] = samples[7]["png"][:50]
    tars.write(here / "tars" / "0.tar", samples)
    data = ["data=shards", "data.source.path=tars", "data.source.val_path=tars", "data.source.image_size=8"]
    encode.run(
        composed("encode", [*data, "data.workers=2", "text=words", "accelerator=cpu", "out=set", "autoencoder=pixels"])
    )
    kept = EncodedSet("train", "set")
    assert kept.captions(7) == kept.captions(8) == ("picture 8",)
    assert torch.equal(kept.latents([7]), kept.latents([8]))
    held_out = EncodedSet("val", "set")
    assert held_out.prompt(7) == "picture 7"
    assert held_out.captions(7) == ("picture 8",)
    np.testing.assert_array_equal(held_out.images([3, 7])[1], held_out.images([8])[0])


def test_other_encoders_are_refused_in_one_line(here: Path, kl: str, refused: Callable[..., str]) -> None:
    encoded_by("out=set", "autoencoder=pca")
    latents = ["data=latents", "data.source.path=set", *RUN]
    assert "encoded by another autoencoder" in refused(train.main, *latents, *TEXT, "autoencoder=kl", kl)
    assert "another autoencoder" in refused(train.main, *latents, *TEXT, "autoencoder=pca", "autoencoder.channels=6")
    assert "has no text of encoder words" in refused(train.main, *latents, "text=words", "text.encoders.words.length=8")
    assert "were encoded with their own" in refused(
        train.main, *latents, *TEXT, "data.mean=[0,0,0]", "data.std=[1,1,1]"
    )
    _, batches = first_batches(
        config("data=latents", "data.source.path=set", "text=words", "text.encoders.words.length=9")
    )
    assert [x.shape[-1] for x in batches[0][0].text.tokens] == [64]  # any subset
    for words in (["dtype=float32"], ["autoencoder=pixels"], ["text=words"], ["data.source.size=231"]):
        assert "another" in refused(encode.main, *SHAPES, "out=set", "autoencoder=pca", *text_of(words), *words)
    with pytest.raises(RunError, match="not the images themselves"):
        EncodedSet("train", "set").images([0])


def test_images_that_the_factor_does_not_cut_are_refused(here: Path, refused: Callable[..., str]) -> None:
    words = ["data=shapes", "data.source.image_size=18", "data.source.size=9", "autoencoder=pca", *TEXT, "out=set"]
    assert "autoencoder.factor=4: allowed is a divisor of 18 x 18, the images' size" in refused(encode.main, *words)


def test_what_is_not_whole_is_refused_in_one_line(here: Path, refused: Callable[..., str]) -> None:
    encoded_by("out=set", "text=words")
    latents = ["data=latents", "data.source.path=copy", "text=words", *RUN]
    assert "copy" in refused(train.main, *latents)
    damage: dict[str, Callable[[Path], object]] = {
        "is missing": lambda path: path.unlink(),
        "bytes, not": lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "is another file": lambda path: path.write_bytes(pickle.dumps(0).ljust(path.stat().st_size, b".")),
        "its encoding has not ended": lambda path: (path.parent / encoded.INDEX).unlink(),
    }
    for told, harm in damage.items():
        shutil.copytree("set", "copy")
        harm(here / "copy" / "train-00001.safetensors")
        assert told in refused(train.main, *latents)
        shutil.rmtree("copy")
    (here / "copy").mkdir()
    assert "nothing was encoded there" in refused(train.main, *latents)
    (here / "copy" / "mine.txt").write_text("")
    assert "other files are in there" in refused(encode.main, *SHAPES, "out=copy")
    assert "dtype=int8" in refused(encode.main, *SHAPES, "out=new", "dtype=int8")
    assert not (here / "new").exists()


def test_an_index_says_what_there_is(here: Path) -> None:
    index = encoded_by("out=set")
    assert json.loads((here / "set" / "index.json").read_text()) == index
    assert (index["train"], index["latent"], set(index["text"])) == (230, [16, 4, 4], {"clip", "words"})
    assert len([name for name in index["shards"] if name.startswith("train")]) == 4
    val = EncodedSet("val", "set")
    assert val.fingerprint == index["source"]["val"]
    with pytest.raises(Refused, match="no text of encoder"):
        EncodedSet("train", "set").names_of(TextEncoders({"words": WordEncoder(5, 16)}))
