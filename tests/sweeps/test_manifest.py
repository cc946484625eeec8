"""plan.jsonl: what is written is what is read, whole or refused, and what differs is told."""

import dataclasses
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import RunError
from sweeps.definition import Sweep
from sweeps.manifest import PLAN, Manifest, departure
from sweeps.plan import plan_of

SWEEP = Sweep("x", ["rf", "edm(0.00,0.60)"], seeds=2, overrides=["logger=wandb", "sigma_data=data"])


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    return plan_of(SWEEP, [f"runs={tmp_path}"])


def test_what_is_written_is_read(manifest, tmp_path) -> None:
    manifest.write()
    manifest.write()
    assert Manifest.read(tmp_path / "x") == manifest
    assert [path.name for path in (tmp_path / "x").iterdir()] == [PLAN]


def test_a_planned_config_is_the_composed_one(manifest, tmp_path) -> None:
    manifest.write()
    with config_loader() as loader:
        composed = compose_jobs(loader, "train", SWEEP.command([f"runs={tmp_path}"]), multirun=True)
    for planned, cfg in zip(Manifest.read(tmp_path / "x").runs, composed, strict=True):
        assert OmegaConf.to_container(planned.cfg, resolve=True) == OmegaConf.to_container(cfg, resolve=True)
        assert planned.id == run_folder(cfg).name
        assert planned.cfg.logger.id.endswith(planned.id)  # the logger asks for its run
        assert OmegaConf.is_struct(planned.cfg)


def cut_short(text: str) -> str:
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    "damage", [cut_short, lambda text: "", lambda text: "{}\n", lambda text: text.splitlines()[0] + "\n"]
)
def test_a_damaged_plan_is_refused_with_what_to_do(manifest, damage) -> None:
    manifest.write()
    path = manifest.folder / PLAN
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunError, match=r"cannot read .*plan\.jsonl.*--replace"):
        Manifest.read(manifest.folder)


def test_without_a_plan_it_is_said_what_makes_one(tmp_path) -> None:
    with pytest.raises(RunError, match="sweeps plan SWEEP makes one"):
        Manifest.read(tmp_path)


def test_a_plan_that_cannot_be_written_leaves_nothing(manifest, tmp_path) -> None:
    (tmp_path / "x").write_text("a file")
    with pytest.raises(RunError, match="cannot create"):
        manifest.write()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_differences_name_the_run_and_the_value(manifest, tmp_path) -> None:
    words = [f"runs={tmp_path}"]
    same = plan_of(SWEEP, [*words, "data.workers=7", "trainer.accelerator=cpu", "logger=csv", "engine=stacked"])
    assert manifest.differences(same) == []  # none of them changes a weight or a score
    assert same.execution == ["engine=stacked", "stack.size=auto", "stack.processes=auto"]
    (first, *_) = manifest.differences(plan_of(SWEEP, [*words, "evaluation.samples=70"]))
    assert first == f"{manifest.runs[0].id}: evaluation.samples=70, planned 2000"
    one = dataclasses.replace(manifest, runs=manifest.runs[:1])
    assert manifest.differences(one) == [f"{planned.id} is planned" for planned in manifest.runs[1:]]
    assert one.differences(manifest) == [f"{planned.id} is not planned" for planned in manifest.runs[1:]]


def test_a_key_that_only_one_has_is_a_difference() -> None:
    assert departure({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}) == "a.c=2, planned nothing"
    assert departure({"a": 1, "runs": "x", "stack": {"size": 3}}, {"a": 1, "runs": "y"}) == ""


def test_unknown_ids_are_refused(manifest) -> None:
    assert manifest.chosen([manifest.runs[1].id, manifest.runs[0].id]) == list(manifest.runs[:2])
    with pytest.raises(RunError, match="nobody: not in the plan"):
        manifest.chosen(["nobody"])


def test_the_runs_of_a_plan_go_where_it_lies(manifest, tmp_path, monkeypatch) -> None:
    manifest.write()
    moved = tmp_path / "else where" / "b (old)"
    moved.parent.mkdir()
    manifest.folder.rename(moved)
    monkeypatch.chdir(moved)
    for folder in (moved, ".", Path("../b (old)"), moved / ".." / moved.name):
        for planned in Manifest.read(folder).runs:
            assert run_folder(planned.cfg).resolve() == moved / planned.id
            assert planned.id in {other.id for other in manifest.runs}
