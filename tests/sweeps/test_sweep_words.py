"""One reading of a word, by every command of sweeps."""

from pathlib import Path

import pytest

from flowzoo.runs.store import RunError
from sweeps.definition import Sweep
from sweeps.plan import plan_of
from sweeps.search.study import load
from sweeps.search.training import Training
from sweeps.standing import folder_of
from sweeps.words import place

PLACES = {
    "sweep=2026_11_26": "runs/2026_11_26",
    "sweep='12e4567'": "runs/12e4567",
    "runs='a b, (c)'": "a b, (c)/named",
    "runs=a=b": "a=b/named",
    "runs=~/there": "HOME/there/named",
    "runs=größe": "größe/named",
    "+runs=1e3": "1e3/named",
}


@pytest.mark.parametrize(("word", "expected"), PLACES.items())
def test_a_folder_is_where_the_words_say(tmp_path, monkeypatch, word, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "HOME"))
    folder = place("named", [word])
    assert folder.relative_to(tmp_path if folder.is_absolute() else ".") == Path(expected)
    if not word.startswith("+"):
        assert plan_of(Sweep("named", ["rf"]), [word]).folder == folder
        with pytest.raises(RunError, match="nothing of this sweep"):
            folder_of("demo", [word])
        folder.mkdir(parents=True)
        assert folder_of(folder.name, [word]) == folder


@pytest.mark.parametrize("word", ["sweep=a/b", "sweep='", "sweep=", "sweep=a b", "sweep=null", "runs=", "runs=a,b"])
def test_what_is_no_folder_is_refused(word):
    with pytest.raises(ValueError, match=word):
        place("named", [word])


@pytest.mark.parametrize("name", ["2024_02_01", "1e3", "true"])
def test_a_study_has_one_folder_whatever_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"{name}.yaml"
    file.write_text(
        "parameters: {sampler.m: {low: -1e-1, high: 1e0}, optimizer.lr: {low: 1e-5, high: 1e-3, log: true}}\n"
        "n_trials: 1\noverrides: [path=rf, sampler=lognorm]"
    )
    study = load(str(file), ["storage='sqlite:///a,b.db'"])
    assert study.storage == "sqlite:///a,b.db"
    assert study.parameters["optimizer.lr"].low == 1e-5
    cfg = Training(study.name, list(study.overrides), guidance=1.0).cfg({"sampler.m": 0.0})
    assert Path(cfg.runs) / cfg.sweep == place(study.name, study.overrides)
