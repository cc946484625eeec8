from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from flowzoo.bench import size
from flowzoo.bench.measure import forward_flops, training_flops
from flowzoo.bench.report import spread
from flowzoo.bench.size import configs, words_of
from flowzoo.bench.stopwatch import Enough, Stopwatch
from flowzoo.build import autoencoder_of
from flowzoo.runs.identity import run_variant

SIZE = {"width": 64, "depth": 1, "image_tokens": 16, "text_tokens": 4, "batch": 2, "images": 8}
SIZE |= {"autoencoder": "pixels", "once": False, "default_text": False}


def test_operations_are_those_of_the_products(tmp_path: Path) -> None:
    """Twice the depth adds that many joint blocks; each is counted by hand: D width, L image and T text tokens."""
    flops = []
    for depth in (2, 3):
        args = Namespace(**{**SIZE, "depth": depth}, precision="auto", device="cpu")
        (cfg,) = configs(words_of(args, tmp_path / "runs"), 1)
        flops.append(forward_flops(cfg))
        assert training_flops(cfg) == 3 * 2 * flops[-1]
    D, L, T = 64, 16, 4
    modulation = 2 * 2 * D * 6 * D  # of both streams, once a sample
    layers = 2 * (L + T) * (3 * D * D + D * D + 2 * 4 * D * D)  # q, k, v; out; the MLP
    attention = 2 * 2 * (L + T) ** 2 * D
    assert flops[1] - flops[0] == modulation + layers + attention


@pytest.mark.parametrize(("image", "text", "lengths"), [(64, 16, (16,)), (256, 154, (77, 77)), (1024, 77, (77,))])
@pytest.mark.parametrize("autoencoder", ["pixels", "pca", "kl"])
def test_tokens_are_those_asked_for(
    image: int, text: int, lengths: tuple[int, ...], autoencoder: str, tmp_path: Path
) -> None:
    size = {"image_tokens": image, "text_tokens": text, "autoencoder": autoencoder}
    args = Namespace(**{**SIZE, **size}, precision="auto", device="cpu")
    (cfg,) = configs(words_of(args, tmp_path / "runs"), 1)
    factor = autoencoder_of(cfg, 3).factor
    assert (cfg.data.source.image_size // factor // cfg.backbone.patch_size) ** 2 == image
    assert tuple(encoder.length for encoder in cfg.text.encoders.values()) == lengths


def test_once_no_image_is_seen_again(tmp_path: Path) -> None:
    args = Namespace(**{**SIZE, "images": 9, "once": True}, precision="auto", device="cpu")
    (cfg,) = configs(words_of(args, tmp_path), 1)
    assert cfg.trainer.steps == 4
    with pytest.raises(ValueError, match="--once with --images 1: allowed is at least one batch, 2"):
        words_of(Namespace(**{**SIZE, "images": 1, "once": True}, precision="auto", device="cpu"), tmp_path)


def test_more_variants_than_names_differ_in_the_learning_rate(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(size, "TABLE", ("eps/linear", "rf/mode(1.29)"))
    args = Namespace(**SIZE, precision="auto", device="cpu")
    cfgs = configs(words_of(args, tmp_path), 3)
    assert [run_variant(cfg) for cfg in cfgs] == ["eps/linear", "rf/mode(1.29)", "eps/linear"]
    assert cfgs[0].optimizer.lr == cfgs[1].optimizer.lr < cfgs[2].optimizer.lr


def test_the_first_lap_warms_up_and_others_wait_for_it() -> None:
    steps, ready = [], []
    watch = Stopwatch(3, 2, 60.0, lambda: ready.append(len(steps)))
    watch.run(lambda: steps.append(1), torch.device("cpu"))
    assert (len(steps), len(watch.laps), ready) == (9, 2, [3])
    assert watch.rate == pytest.approx(2 / sum(watch.laps))
    impatient = Stopwatch(1, 5, 0.0)
    impatient.tick()
    with pytest.raises(Enough):
        impatient.tick()


def test_spread_of_repeats() -> None:
    assert spread([0.001, 0.002, 0.003, 0.004, 0.005]) == {
        "ms": 3.0,
        "ms_min": 1.0,
        "ms_max": 5.0,
        "ms_iqr": 2.0,
        "repeats": 5,
    }
    assert spread([0.25])["ms_iqr"] == 0
