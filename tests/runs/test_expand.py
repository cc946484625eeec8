"""Jobs composed together are those that Hydra composes one by one."""

import json

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from flowzoo.runs.config import compose_jobs, config_loader, expand_jobs
from flowzoo.runs.expand import compose_one

COMMANDS = {
    "variants of every kind": [
        *("variant=glob([rf*,edm*0.60*,eps*,v_linear])", "backbone=dit,mmdit", "seed=0,1"),
        *("data=shapes,folder", "optimizer.lr=1e-3,4e-3"),
    ],
    "options that override others": ["experiment=demo,cifar10", "text=clip,words", "evaluation=paper,quick"],
    "a value over an option's": ["backbone=dit,uvit", "backbone.depth=2,3", "solver=heun,recombine"],
    "values that are not plain": ["data.mean=null,[0.1,0.2,0.3]", "evaluation.settings=[{steps: 2, guidance: 1.0}],[]"],
    "a value that others ask for": ["captions=mix,terse", "sigma_data=0.5,data", "path=edm,rf"],
    "keys that are new": ["+note=a,b", "++seed=3,4"],
    "words": ["sweep='a b','c=d'", "runs=${sweep},x"],
    "loggers": ["logger=csv,wandb,tensorboard", "seed=0,1"],
}


def one_by_one(loader, words):
    return [compose_one(loader, "train", job).cfg for job in words]


def written(cfg) -> str:
    """With the order of the keys, and with what is not resolved."""
    return json.dumps(OmegaConf.to_container(cfg))


def batch_of(loader, words, monkeypatch):
    """The words of each job, as Hydra's sweeper makes them."""
    seen = []

    def record(loader, config_name, always, batch):
        seen.extend(batch)
        return []

    with monkeypatch.context() as patch:
        patch.setattr("flowzoo.runs.config.compose_batch", record)
        compose_jobs(loader, "train", words, multirun=True)
    return seen


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_as_composed_one_by_one(words, monkeypatch) -> None:
    with config_loader() as loader:
        jobs = expand_jobs(loader, "train", words, multirun=True)
        batch = batch_of(loader, words, monkeypatch)
    chosen = range(0, len(jobs), max(1, len(jobs) // 8))
    with config_loader() as loader:
        expected = one_by_one(loader, [batch[i] for i in chosen])
    assert len(jobs) == len(batch) > 1
    for i, cfg in zip(chosen, expected, strict=True):
        assert written(jobs[i].cfg) == written(cfg)
        assert OmegaConf.is_struct(jobs[i].cfg)
        if "???" not in written(cfg):
            raw = OmegaConf.to_container(cfg)
            whole = OmegaConf.to_container(cfg, resolve=True)
            assert jobs[i].resolved == {**whole, "logger": raw["logger"]}


def test_jobs_that_differ_in_values_alone_are_composed_once(monkeypatch) -> None:
    words = ["variant=glob(rf_lognorm*)", "seed=0,1,2", "optimizer.lr=1e-3,2e-3"]
    with config_loader() as loader:
        jobs = expand_jobs(loader, "train", words, multirun=True)
    assert len(jobs) == 30 * 6
    assert len({id(job.template) for job in jobs}) == 1


def test_an_option_chosen_by_the_name_of_another(tmp_path) -> None:
    for name, content in [
        ("own.yaml", "defaults:\n  - flavour: a\n  - follower: ${flavour}\n"),
        ("flavour/a.yaml", "name: one\n"),
        ("flavour/b.yaml", "name: other\n"),
        ("follower/a.yaml", "of: a\n"),
        ("follower/b.yaml", "of: b\n"),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with config_loader(str(tmp_path)) as loader:
        jobs = compose_jobs(loader, "own", ["flavour=a,b"], multirun=True)
    assert [(cfg.flavour.name, cfg.follower.of) for cfg in jobs] == [("one", "a"), ("other", "b")]


def test_a_value_inside_a_text(tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "told.yaml").write_text("# @package _global_\nnote: seed ${seed}\n")
    with config_loader(str(tmp_path)) as loader:
        jobs = expand_jobs(loader, "train", ["experiment=told", "seed=0,1"], multirun=True)
    assert [job.resolved["note"] for job in jobs] == ["seed 0", "seed 1"]


@pytest.mark.parametrize("word", ["backbone=dit,nothing", "trainer.nothing=1,2", "text=clip,words experiment=demo,x"])
def test_mistakes_are_hydras_own(word) -> None:
    with config_loader() as loader, pytest.raises(HydraException) as one:
        compose_jobs(loader, "train", word.split(), multirun=True)
    assert "__axis" not in str(one.value)
    assert any(name in str(one.value) for name in ("nothing", "'experiment/x'"))
