"""The configs that a plan's runs are executed with."""

import pytest

from flowzoo.runs.identity import run_folder
from sweeps.definition import Sweep
from sweeps.manifest import Manifest
from sweeps.plan import plan_of
from sweeps.work import jobs


@pytest.mark.parametrize("words", [[], ["logger=wandb", "engine=stacked"]])
def test_a_plan_that_was_moved_is_executed_where_it_lies(tmp_path, monkeypatch, words) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = plan_of(Sweep("x", ["rf", "eps/linear"]))
    manifest.write()
    moved = tmp_path / "else where" / "b (old)"
    moved.parent.mkdir()
    manifest.folder.rename(moved)
    (tmp_path / "runs").rmdir()
    (tmp_path / "runs").write_text("a file where the runs were")
    ids = [planned.id for planned in manifest.runs]
    cfgs = jobs(Manifest.read("else where/b (old)"), ids, words)
    assert [run_folder(cfg).resolve() for cfg in cfgs] == [moved / id for id in ids]
