"""A key that nothing reads is refused, in every group and at the top."""

import pytest

from flowzoo.runs.config import check_jobs, compose_jobs, config_loader


def check(*words: str) -> None:
    with config_loader() as loader:
        check_jobs(compose_jobs(loader, "train", words, multirun=False))


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("+trainer.callbacks=[{_target_: lightning.pytorch.callbacks.EarlyStopping}]", "trainer.callbacks"),
        ("+trainer.gradient_clip_val=1", "trainer.gradient_clip_val"),
        ("+trainer.progress=true", "trainer.progress"),
        ("+callback=[]", "callback"),
        ("+note=a", "note"),
        ("+data.shuffle=true", "data.shuffle"),
        ("+evaluation.clip=false", "evaluation.clip"),
        ("+path.weight=1", "path.weight"),
        ("+logger.project=mine", "logger.project"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(word: str, key: str) -> None:
    with pytest.raises(ValueError, match=rf"{key}=.*: nothing reads {key}; allowed: ") as told:
        check(word)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "words",
    [
        ("experiment=demo", "path=edm", "logger=wandb"),
        ("trainer=stacked", "halving=asha", "logger=tensorboard"),
        ("+metric.mine={_target_: flowzoo.metrics.fid.FID}", "callbacks=[timer]"),
        ("text=clip", "solver=heun", "solver/grid=karras", "backbone=uvit", "autoencoder=pixels"),
    ],
)
def test_every_key_of_the_options_is_known(words: tuple[str, ...]) -> None:
    check(*words)
