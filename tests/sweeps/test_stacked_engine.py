"""A sweep whose runs are trained together."""

import sys
from types import SimpleNamespace

import pytest

from flowzoo.runs.grouping import is_stacked
from flowzoo.runs.identity import run_variant
from sweeps.__main__ import main


def test_the_engine_gets_all_runs_at_once(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    calls = []

    def run_together(cfgs):
        calls.append(cfgs)
        return 1

    monkeypatch.setitem(sys.modules, "flowzoo.train", SimpleNamespace(run_together=run_together))
    assert main(["run", "demo", "engine=stacked", "stack.size=3", "variant=rf,v_cos"]) == 1
    (cfgs,) = calls
    assert [run_variant(cfg) for cfg in cfgs] == ["rf", "v/cos"]
    assert all(map(is_stacked, cfgs))
    assert all(cfg.stack.size == 3 and cfg.sweep == "demo" for cfg in cfgs)
    assert "v/cos" in capsys.readouterr().out  # the table of where each stands
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["plan.jsonl"]


@pytest.mark.parametrize("word", ["engine=many", "stack.size=0 engine=stacked", "stack.size=3"])
def test_mistakes_are_refused(word: str, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "demo", *word.split()]) == 2
    assert capsys.readouterr().err.startswith("sweeps: ")
