"""A batch in parts: the run is the same but for rounding, and so is its name."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from flowzoo import train
from flowzoo.build import loop_of
from flowzoo.runs.config import check_jobs
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder
from flowzoo.training.checkpoint import read_weights
from flowzoo.training.loop import Loop

WORDS = ["trainer.precision=64-true", "trainer.steps=4", "trainer.val_every=2", "trainer.checkpoint_every=4"]
Jobs = Callable[..., list[DictConfig]]


@pytest.mark.parametrize(
    ("variants", "more"),
    [
        (["variant=rf"], ["trainer.clip_norm=0.01"]),
        (["variant=rf,edm_cos", "seed=0,1"], ["trainer=stacked", "text=clip_words"]),
    ],
    ids=["alone", "stacked"],
)
def test_the_parts_come_to_the_whole(tiny_jobs: Jobs, variants: list[str], more: list[str]) -> None:
    found = []
    for parts in (1, 4):
        words = [*WORDS, *variants, *more, f"trainer.accumulate={parts}"]
        cfgs = [alone(cfg) for cfg in tiny_jobs(*words, runs=f"in {parts}")]
        check_jobs(cfgs)
        train.run(*cfgs)
        found.append([run_folder(cfg) for cfg in cfgs])
    for one, other in zip(*found, strict=True):
        assert one.name == other.name
        for weights in ("raw", "ema"):
            a, b = (read_weights(path / "checkpoints" / "best.ckpt", weights)[0] for path in (one, other))
            assert any(not torch.equal(a[name], b[name]) for name in a)  # it was another order
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_half_precision_is_added_up_in_float32(tiny_jobs: Jobs) -> None:
    (cfg,) = tiny_jobs("trainer.precision=bf16-mixed", *WORDS[1:], "trainer.accumulate=8", "path=rf")
    train.run(alone(cfg))
    state, _ = read_weights(run_folder(cfg) / "checkpoints" / "last.ckpt", "raw")
    assert {x.dtype for x in state.values()} == {torch.float32}


def test_what_does_not_divide_is_refused(tiny_jobs: Jobs) -> None:
    with pytest.raises(ValueError, match=r"trainer\.accumulate=3: allowed is a divisor of 8, trainer\.batch_size"):
        check_jobs(tiny_jobs("trainer.accumulate=3"))
    with pytest.raises(ValueError, match=r"accumulate=8: allowed is a divisor of 4, trainer\.batch_size / 2 processes"):
        check_jobs(tiny_jobs("trainer.accumulate=8", "trainer.devices=2"))


def test_a_run_from_before_there_were_parts_goes_on(tiny_jobs: Jobs) -> None:
    (cfg,) = tiny_jobs("path=rf")
    old = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    assert isinstance(old, DictConfig)
    del old.trainer["accumulate"]
    check_jobs([old])
    assert run_folder(old) == run_folder(cfg)
    assert loop_of(old).accumulate == 1


def test_memory_is_asked_for_what_is_there_at_once() -> None:
    assert Loop(batch_size=1024, accumulate=8).at_once == 128
