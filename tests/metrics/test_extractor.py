import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowzoo.content import SHIPPED
from flowzoo.data.shapes import Shapes
from flowzoo.encoders.clip import build_clip, load_clip, save_clip, tokenizer
from flowzoo.metrics.extractor import Extractor, OpenClipExtractor, resize
from flowzoo.metrics.quality import retrieval_top1


def test_tokenizer_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the tokenizer opened a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    tokens = tokenizer(8)(["a red circle", "word " * 50, ""])
    assert tokens.shape == (3, 8)
    end = tokens.max(1)
    assert (end.values == 49407).all()
    assert end.indices.tolist() == [4, 7, 1]  # cut captions keep the end token


def test_features_are_those_of_the_model(extractor: Extractor) -> None:
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    x = (images / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.25, 0.2, 0.3]).view(3, 1, 1)
    features = extractor.images(images)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, extractor.model.encode_image(x), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(features.norm(dim=1), torch.ones(5), atol=0.05)  # unnormalised
    assert extractor.text(["a", "b"]).shape == (2, extractor.dim)
    assert extractor.images(images[:0]).shape == (0, extractor.dim)


def test_batch_size_and_autocast_do_not_matter(random_clip: Path, extractor: Extractor) -> None:
    images = torch.randint(0, 256, (7, 3, 24, 40), dtype=torch.uint8)
    whole = extractor.images(images)
    torch.testing.assert_close(Extractor(random_clip, batch_size=2).images(images), whole)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(extractor.images(images), whole)


def test_resize_keeps_range_size_and_constants() -> None:
    noise = torch.randint(0, 2, (2, 3, 64, 48), dtype=torch.uint8) * 255
    x = resize(noise, 32)
    assert x.shape == (2, 3, 32, 32)
    assert x.min() >= 0
    assert x.max() <= 255
    same = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(resize(same, 32), same.float())
    torch.testing.assert_close(
        resize(torch.full((1, 1, 16, 16), 77, dtype=torch.uint8), 32), torch.full((1, 3, 32, 32), 77.0)
    )
    # Antialiased: stripes of one pixel become grey, not other stripes.
    stripes = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    stripes[..., ::2] = 255
    assert resize(stripes, 32)[..., 4:-4].std() < 10


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8, dtype=torch.uint8)],
)
def test_bad_images_are_named(extractor: Extractor, bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        extractor.images(bad)


def test_identity_holds_the_weights(
    tmp_path: Path, random_clip: Path, extractor: Extractor, architecture: dict[str, Any]
) -> None:
    assert set(extractor.identity) == {"name", "weights_sha256", "resize", "dtype", "dim"}
    model, about = load_clip(random_clip)
    with torch.no_grad():
        model.visual.proj[0, 0] += 1
    save_clip(model, tmp_path / "other", architecture=architecture, about=about)
    other = Extractor(tmp_path / "other").identity
    assert {k for k in other if other[k] != extractor.identity[k]} == {"weights_sha256"}


def test_file_is_half_precision_and_round_trips(
    tmp_path: Path, random_clip: Path, architecture: dict[str, Any]
) -> None:
    assert {v.dtype for v in load_file(random_clip).values()} == {torch.float16}
    model, about = load_clip(random_clip)
    save_clip(
        model,
        tmp_path / "again",
        architecture=architecture,
        about={k: about[k] for k in ("name", "quality", "data", "command")},
    )
    one, other = load_file(random_clip), load_file(tmp_path / "again")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert load_clip(tmp_path / "again")[1] == about


def test_foreign_files_are_refused(tmp_path: Path, random_clip: Path, architecture: dict[str, Any]) -> None:
    with pytest.raises(FileNotFoundError, match="train_clip"):
        Extractor(tmp_path / "absent")
    junk = tmp_path / "junk"
    junk.write_bytes(b"no tensors here")
    with pytest.raises(ValueError, match="not a safetensors file"):
        Extractor(junk)
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="not written by"):
        Extractor(tmp_path / "foreign")
    wider = architecture | {"embed_dim": 24}
    save_clip(load_clip(random_clip)[0], tmp_path / "misfit", architecture=wider, about={"name": "x", "quality": {}})
    with pytest.raises(ValueError, match="does not fit"):
        Extractor(tmp_path / "misfit")


def test_open_clip_model_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: dict[str, Any]
) -> None:
    import open_clip
    from open_clip import factory

    config = {k: architecture[k] for k in ("embed_dim", "vision_cfg", "text_cfg")}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", config)
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny-quickgelu", config | {"quick_gelu": True})
    torch.manual_seed(1)
    model = build_clip(architecture).eval()
    path = tmp_path / "tiny.pt"
    torch.save(model.state_dict(), path)
    extractor = OpenClipExtractor("tiny", path, quick_gelu=False)
    images = torch.randint(0, 256, (3, 3, 50, 50), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    expected = model.encode_image((resize(images, 32) / 255 - mean) / std)
    torch.testing.assert_close(extractor.images(images), expected, atol=1e-5, rtol=1e-4)
    captions = ["a cat", "two dogs"]
    torch.testing.assert_close(
        extractor.text(captions), model.encode_text(tokenizer(16)(captions)), atol=1e-5, rtol=1e-4
    )
    assert extractor.identity["dim"] == 16
    assert extractor.identity["name"] == "tiny"
    with pytest.raises(ValueError, match="quickgelu"):
        OpenClipExtractor("tiny", path, quick_gelu=True)
    with pytest.raises(ValueError, match="quickgelu"):
        OpenClipExtractor("tiny-quickgelu", path, quick_gelu=False)
    with pytest.raises(FileNotFoundError, match="no weights"):
        OpenClipExtractor("tiny", tmp_path / "absent", quick_gelu=False)
    with pytest.raises(ValueError, match="has no model"):
        OpenClipExtractor("tinier", path, quick_gelu=False)


def test_shipped_weights_know_shapes() -> None:
    if not SHIPPED.is_file():
        warnings.warn(f"{SHIPPED.name} is absent: THE QUALITY OF THE EXTRACTOR IS NOT TESTED", stacklevel=1)
        pytest.skip(f"{SHIPPED.name} is absent")
    assert SHIPPED.stat().st_size <= 10_000_000
    extractor = Extractor()
    # Another seed than the one it was trained and measured with.
    measured = retrieval_top1(extractor, Shapes("val", seed=1, captions="mix"), groups=2)
    assert measured >= 0.8
    assert abs(measured - extractor.quality["value"]) < 0.05
