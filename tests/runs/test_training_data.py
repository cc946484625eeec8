"""The statistics of the training images stay with a run, and a run stays with its images."""

import json

import pytest

from flowzoo.build import build, source_of, statistics_of
from flowzoo.data import shapes
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.store import Run, RunError, data_of
from flowzoo.training.stacks import _on_these_data

SMALL = ["text=words", "data.source.size=64", "data.source.image_size=16", "backbone.depth=1", "backbone.width=64"]


@pytest.fixture
def cfgs(tmp_path):
    with config_loader() as loader:
        return compose_jobs(loader, "train", [*SMALL, f"runs={tmp_path}", "variant=rf,v_cos,eps_cos"], multirun=True)


@pytest.fixture
def folders(cfgs):
    return [Run.create(cfg).path for cfg in cfgs]


def test_a_run_refuses_other_images_and_names_both(cfgs, folders, monkeypatch):
    before = statistics_of(cfgs[0], folders[0], source_of(cfgs[0], "train"))
    assert statistics_of(cfgs[0], folders[0], source_of(cfgs[0], "train")) == before
    assert data_of(folders[0]) == before["fingerprint"]
    monkeypatch.setattr(shapes, "VERSION", 2)  # as if the images were replaced
    train = source_of(cfgs[0], "train")
    with pytest.raises(RunError) as told:
        statistics_of(cfgs[0], folders[0], train)
    assert all(word in str(told.value) for word in (train.fingerprint[:8], before["fingerprint"][:8], "allowed: "))
    assert "\n" not in str(told.value)
    assert statistics_of(cfgs[0], folders[0]) == before


def test_a_stack_does_not_mix_images(cfgs, folders, monkeypatch):
    statistics_of(cfgs[0], folders[0], source_of(cfgs[0], "train"))
    monkeypatch.setattr(shapes, "VERSION", 2)
    train = source_of(cfgs[0], "train")
    for order in ((0, 1), (1, 0)):
        with pytest.raises(RunError, match="holds other training data"):
            build([cfgs[i] for i in order], [folders[i] for i in order], train)
    build(cfgs[1:], folders[1:], train)
    assert data_of(folders[1]) == data_of(folders[2]) == train.fingerprint != data_of(folders[0])
    with pytest.raises(RunError, match="was trained on other data than"):
        build(cfgs, folders)
    going, refused = _on_these_data(cfgs)
    assert (going, [cfg for cfg, _ in refused]) == (cfgs[1:], cfgs[:1])


def test_statistics_that_tell_no_fingerprint_are_no_answer(cfgs, folders):
    (folders[0] / "data.json").write_text(json.dumps({"mean": [0.5], "std": [0.5], "deviation": 1.0}))
    with pytest.raises(RunError, match=r"cannot read .*data\.json: .*fingerprint.*; allowed: "):
        statistics_of(cfgs[0], folders[0], source_of(cfgs[0], "train"))
