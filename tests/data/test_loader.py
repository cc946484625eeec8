"""Batches are a function of (seed, step), whatever the cache, the start and the number of ranks."""

import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flowzoo.data import loader
from flowzoo.data.folder import Folder
from flowzoo.data.loader import Batch, Batches, Plan
from flowzoo.data.reading import CorruptImages
from flowzoo.data.shapes import Shapes
from flowzoo.data.textcache import TextCache
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.encoders.words import WordEncoder, words_of
from flowzoo.randomness import word

CPU = torch.device("cpu")


class Hashed:
    """Two encoders, one without a pooled vector; numbers that half precision has to round."""

    def __init__(self) -> None:
        self.encoded: Counter[str] = Counter()

    def encode(self, captions: list[str]) -> Text:
        self.encoded.update(captions)
        x = torch.tensor([word(c) / 2**63 for c in captions])
        return Text(
            (x.view(-1, 1, 1).expand(-1, 3, 4), x.view(-1, 1, 1).expand(-1, 2, 5)),
            (torch.stack([x, 1000 * x % 1], 1), x.new_empty(len(x), 0)),
        )


class Synonyms:
    """Image i is all i, and has i % 4 + 1 captions."""

    name, size, channels, fingerprint = "synonyms", (2, 2), 1, "0"

    def __len__(self) -> int:
        return 40

    def images(self, indices: list[int]) -> np.ndarray:
        return np.asarray(indices, np.uint8)[:, None, None, None].repeat(2, 2).repeat(2, 3)

    def captions(self, index: int) -> tuple[str, ...]:
        return tuple(f"{index} {k}" for k in range(index % 4 + 1))

    def prompt(self, index: int) -> str:
        return f"{index} 0"


def batches(cache: str = "device", **settings: object) -> Batches:
    given = {"source": Shapes("train", 16, size=50), "encoders": Hashed(), "batch_size": 8, "seed": 3, "workers": 0}
    return Batches(device=CPU, cache=cache, **(given | settings))  # type: ignore[arg-type]


def flat(batch: Batch) -> list[Tensor]:
    return [batch.images, *batch.text.tokens, *batch.text.pooled]


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(flat(a), flat(b), strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_both_caches_give_the_same_batches(workers: int) -> None:
    resident, streamed = batches("device"), batches("none", workers=workers)
    steps = range(5, 20)
    for step, a, b in zip(steps, resident.iterate(5), streamed.iterate(5), strict=False):
        assert same(a, b)
        assert same(a, streamed.at(step))
        assert b.captions is not None
        assert a.images.dtype == torch.uint8
        assert a.text.tokens[0].dtype == torch.float32
    assert streamed.wait > 0


def test_images_may_be_kept_encoded() -> None:
    """Each once, whatever the number of batches; where they are not kept they come as they are."""
    seen = []

    def encode(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.float().mean((2, 3), keepdim=True)

    encoded, plain = batches("device", encode=encode), batches("device")
    for step in range(9):
        torch.testing.assert_close(encoded.at(step).images, plain.at(step).images.float().mean((2, 3), keepdim=True))
    assert sum(seen) == 50 + 1  # and one, whose size is asked for
    assert torch.equal(batches("none", encode=encode).at(3).images, plain.at(3).images)


def test_the_longest_caption_is_known_where_all_are_encoded() -> None:
    encoders = TextEncoders({"few": WordEncoder(4, 8), "many": WordEncoder(30, 8)})
    kept = batches("device", encoders=encoders)
    words = max(len(words_of(c)) for i in range(50) for c in Shapes("train", 16, size=50).captions(i))
    assert kept.longest == kept.reseeded(4).longest == (4, words)
    assert batches("none", encoders=encoders).longest is None
    assert batches("device", encoders=None).longest is None


@pytest.mark.parametrize("cache", ["device", "none"])
def test_without_encoders_the_same_images_come_without_text(cache: str) -> None:
    told, bare = batches(cache).at(4), batches(cache, encoders=None).at(4)
    assert torch.equal(told.images, bare.images)
    assert bare.text == Text((), ())


@pytest.mark.parametrize("cache", ["device", "none"])
def test_going_on_equals_never_having_stopped(cache: str) -> None:
    whole = list(itertools.islice(batches(cache), 16))
    resumed = list(itertools.islice(batches(cache).iterate(9), 7))
    assert all(same(a, b) for a, b in zip(whole[9:], resumed, strict=True))
    assert not same(whole[0], whole[1])


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for cache in ("device", "none"):
        next(batches(cache).iterate())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("images", "batch"), [(50, 8), (7, 20), (64, 8), (1, 4)])
def test_each_epoch_visits_every_image_once_and_drops_none(images: int, batch: int) -> None:
    plan = Plan(images, batch, seed=0)
    visits = torch.cat([plan.indices(k) for k in range(3 * images)])
    epochs = visits[: len(visits) // images * images].view(-1, images)
    assert (epochs.sort(1).values == torch.arange(images)).all()
    if images >= 50:
        assert not torch.equal(epochs[0], epochs[1])
    # In any order of asking.
    backward = [plan.indices(k) for k in reversed(range(3 * images))]
    assert torch.equal(torch.cat(backward[::-1]), visits)


def test_seeds_draw_different_orders_and_captions() -> None:
    a, b = Plan(100, 50, seed=0), Plan(100, 50, seed=1)
    assert not torch.equal(a.indices(0), b.indices(0))
    assert not torch.equal(a.draws(0), b.draws(0))
    assert not torch.equal(a.draws(0), a.draws(1))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_partition_the_batch(world: int) -> None:
    whole = Plan(50, 16, seed=0)
    parts = [Plan(50, 16, seed=0, rank=r, world=world) for r in range(world)]
    for step in range(10):
        assert torch.equal(torch.cat([p.indices(step) for p in parts]), whole.indices(step))
        assert torch.equal(torch.cat([p.draws(step) for p in parts]), whole.draws(step))


@pytest.mark.parametrize("cache", ["device", "none"])
def test_every_alternative_is_drawn_equally_often_and_belongs_to_its_image(cache: str) -> None:
    source = Synonyms()
    made = batches(cache, source=source, batch_size=40)
    captions = [c for i in range(40) for c in source.captions(i)]
    named = dict(zip(map(tuple, Hashed().encode(captions).pooled[0].half().tolist()), captions, strict=True))
    assert len(named) == len(captions)
    seen: Counter[str] = Counter()
    for batch in itertools.islice(made, 200):
        for image, pooled in zip(batch.images[:, 0, 0, 0].tolist(), batch.text.pooled[0].tolist(), strict=True):
            caption = named[tuple(pooled)]
            assert caption in source.captions(image)
            seen[caption] += 1
    for i in range(40):
        for caption in source.captions(i):
            expected = 200 / (i % 4 + 1)
            assert abs(seen[caption] - expected) < 5 * expected**0.5 + 1


def test_each_caption_is_encoded_once_or_as_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    source = Shapes("train", 16, size=300)
    indices, draws = torch.arange(300), torch.arange(300) * 7
    encoders = Hashed()
    kept = TextCache(source, encoders, CPU)
    assert kept.kept
    assert set(encoders.encoded) == {c for i in range(300) for c in source.captions(i)}
    assert sum(encoders.encoded.values()) == len(encoders.encoded) + 1  # one more, for the sizes
    a = kept.at(indices, draws)
    assert sum(encoders.encoded.values()) == len(encoders.encoded) + 1
    small = TextCache(source, encoders, CPU, budget=1000)
    assert not small.kept
    assert "encoded anew" in caplog.text
    b = small.at(indices, draws)
    assert all(torch.equal(x, y) for x, y in zip((*a.tokens, *a.pooled), (*b.tokens, *b.pooled), strict=True))


def test_a_split_that_does_not_fit_is_refused_with_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "free_memory", lambda device: 2**30)
    with pytest.raises(
        ValueError, match=r"needs 7.15 GiB for 10000000 images of shapes.*1.00 GiB free.*data.cache=none"
    ):
        batches(source=Shapes("train", 16, size=10_000_000))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"cache": "disk"}, "data.cache='disk'.*device, none"),
        ({"workers": -1}, "data.workers=-1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 9, "world": 2}, "batch_size=9.*multiple of the 2"),
        ({"rank": 2, "world": 2}, "rank=2.*0 to 1"),
    ],
)
def test_mistakes_are_named(mistake: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(**mistake)


def test_corrupt_images_found_by_worker_processes_count_together(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cat/000.png")
    for i in range(1, 200):
        shutil.copy(tmp_path / "cat/000.png", tmp_path / f"cat/{i:03}.png")
    for i in (0, 1, 2):
        (tmp_path / f"cat/{i:03}.png").write_bytes(b"broken")
    source = Folder("train", str(tmp_path), str(tmp_path), image_size=4)
    stream = batches("none", source=source, workers=2).iterate()
    with pytest.raises(CorruptImages, match=r"^3 of the 200 images"):
        list(itertools.islice(stream, 26))
