"""Where nothing was measured, the bench's own sizes take the bench's own time, and larger networks longer."""

import pytest

from flowzoo.bench.size import configs
from sweeps.benched import estimate

BENCH = ["autoencoder=pixels", "backbone.patch_size=4", "text=words", "text.encoders.words.length=16"]


def seconds(*words: str, stacked: bool = True) -> float:
    (cfg,) = configs([*BENCH, *words], 1)
    found = estimate(cfg, stacked)
    assert found is not None
    return found.seconds


def test_the_size_that_was_benched_takes_as_long_as_there() -> None:
    assert 1 / seconds() == pytest.approx(
        74_476, rel=0.01
    )  # images/s of 61 stacked, docs/benchmarks/2026-11-22-h100.jsonl
    assert 1 / seconds("backbone.width=384", "backbone.depth=12") == pytest.approx(21_576, rel=0.01)


def test_more_work_takes_longer_and_a_small_step_no_less_than_its_start() -> None:
    assert seconds("backbone.depth=12") == pytest.approx(2 * seconds(), rel=0.25)
    tiny = [seconds("backbone.width=64", f"backbone.depth={depth}", stacked=False) for depth in (1, 2)]
    assert tiny == [0.003 / 128] * 2


def test_a_network_that_cannot_be_built_has_no_estimate() -> None:
    (cfg,) = configs(BENCH, 1)
    cfg.text.encoders.words.length = -1
    cfg.backbone._target_ = "nowhere.Backbone"
    assert estimate(cfg, stacked=True) is None
