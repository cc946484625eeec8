"""The statistics of the training images stay with a run, and a run stays with its images."""

import json
from dataclasses import replace

import pytest

from flowzoo.autoencoders.kept import save
from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pixels import Pixels
from flowzoo.autoencoders.statistics import ChannelStatistics
from flowzoo.build import jobs_of
from flowzoo.data import shapes
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import RunError, data_of
from flowzoo.sources import source_of
from flowzoo.stacks import _on_these_data
from flowzoo.training.lifecycle import keep_data

SMALL = [
    "text=words",
    "data.source.size=64",
    "data.source.image_size=16",
    "autoencoder=pixels",
    "backbone.depth=1",
    "backbone.width=64",
]


@pytest.fixture
def cfgs(tmp_path):
    with config_loader() as loader:
        return compose_jobs(loader, "train", [*SMALL, f"runs={tmp_path}", "variant=rf,v_cos,eps_cos"], multirun=True)


@pytest.fixture
def folders(cfgs):
    return [run_folder(cfg) for cfg in cfgs]


def begun(cfgs):
    """As the first step of training leaves them."""
    for job in jobs_of(cfgs):
        job.run.make(job.config, job.variant)
        keep_data(job)


def test_building_writes_nothing(cfgs, tmp_path):
    assert len(jobs_of(cfgs)) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_run_refuses_other_images_and_names_both(cfgs, folders, monkeypatch):
    begun(cfgs[:1])
    before = data_of(folders[0])
    told = json.loads((folders[0] / "data.json").read_text())
    about = dict(jobs_of(cfgs[:1])[0].about_data)
    assert told == {**about, "size": list(about["size"]), "fingerprint": before}
    monkeypatch.setattr(shapes, "VERSION", 2)  # as if the images were replaced
    train = source_of(cfgs[0], "train")
    with pytest.raises(RunError) as told:
        jobs_of(cfgs[:1])
    assert all(word in str(told.value) for word in (train.fingerprint[:8], before[:8], "allowed: "))
    assert "\n" not in str(told.value)
    assert data_of(folders[0]) == before != train.fingerprint


def test_jobs_made_by_hand_refuse_other_images_too(cfgs, folders, monkeypatch):
    begun(cfgs[:1])
    (job,) = jobs_of(cfgs[:1])
    monkeypatch.setattr(shapes, "VERSION", 2)
    with pytest.raises(RunError, match="trained on other images"):
        keep_data(replace(job, train=source_of(cfgs[0], "train")))


def test_a_stack_does_not_mix_images(cfgs, folders, monkeypatch):
    begun(cfgs[:1])
    monkeypatch.setattr(shapes, "VERSION", 2)
    train = source_of(cfgs[0], "train")
    for order in ((0, 1), (1, 0)):
        with pytest.raises(RunError, match="holds other training data"):
            jobs_of([cfgs[i] for i in order])
    begun(cfgs[1:])
    assert data_of(folders[1]) == data_of(folders[2]) == train.fingerprint != data_of(folders[0])
    going, refused = _on_these_data(cfgs)
    assert (going, [cfg for cfg, _ in refused]) == (cfgs[1:], cfgs[:1])


def test_a_stack_does_not_mix_latents(cfgs, folders):
    begun(cfgs)
    one = folders[1] / "autoencoder.safetensors"
    save(one, Pixels(3), ChannelStatistics.given([1.0] * 3, [2.0] * 3))  # as measured elsewhere
    with pytest.raises(RunError, match=r"autoencoder\.safetensors tells other latents"):
        jobs_of(cfgs[1:2])
    about = json.loads((folders[1] / "data.json").read_text())
    latents = Latents(Pixels(3), [1.0] * 3, [2.0] * 3)
    (folders[1] / "data.json").write_text(json.dumps(about | {"latents": latents.fingerprint}))
    with pytest.raises(RunError, match="tells other latents"):
        jobs_of(cfgs)
    assert jobs_of(cfgs[1:2])[0].statistics.std == (2.0,) * 3


def test_statistics_that_tell_no_fingerprint_are_no_answer(cfgs, folders):
    folders[0].mkdir(parents=True)
    (folders[0] / "data.json").write_text(json.dumps({"mean": [0.5], "std": [0.5], "deviation": 1.0}))
    with pytest.raises(RunError, match=r"cannot read .*data\.json: .*fingerprint.*; allowed: "):
        jobs_of(cfgs[:1])
