"""Study files: what ships can be searched, and a mistake is one line and leaves nothing behind."""

from pathlib import Path

import pytest
import yaml
from hydra.utils import instantiate

from sweeps.__main__ import main
from sweeps.search.study import load, study_names


def ends(study) -> tuple[dict[str, float], dict[str, float]]:
    return {p.name: p.low for p in study.parameters.values()}, {p.name: p.high for p in study.parameters.values()}


@pytest.mark.parametrize("name", study_names())
def test_what_ships_is_allowed(name: str) -> None:
    study = load(name)
    instantiate(study.objective, sweep=name, words=list(study.overrides)).check(*ends(study))


def test_words_win() -> None:
    study = load("lognorm", ["n_trials=7", "trainer.steps=3", "storage=sqlite:///x.db"])
    assert (study.n_trials, study.storage) == (7, "sqlite:///x.db")
    assert study.overrides[-1] == "trainer.steps=3"


GOOD = {
    "parameters": {"sampler.s": {"low": -0.5, "high": 1.0}},
    "n_trials": 3,
    "overrides": ["path=rf", "sampler=mode"],
    "objective": {"steps": 5, "guidance": 1.0},
}
MISTAKES = {
    "n_trials=0": {"n_trials": 0},
    "allowed is an integer of at least 0": {"seed": -1},
    "allowed are tpe, nsga2": {"sampler": "grid"},
    "key trials": {"trials": 3},
    "allowed is low < high": {"parameters": {"sampler.s": {"low": 1.0, "high": 0.5}}},
    "with log": {"parameters": {"sampler.s": {"low": -0.5, "high": 0.5, "log": True}}},
    "'a': allowed is a finite number": {"parameters": {"sampler.s": {"low": "a", "high": 0.5}}},
    "allowed is {low": {"parameters": {"sampler.s": [0, 1]}},
    "sampler.s = 9.0": {"parameters": {"sampler.s": {"low": 0.0, "high": 9.0}}},
    "sampler.x": {"parameters": {"sampler.x": {"low": 0.0, "high": 1.0}}},
    "optimizer.lr=0": {"parameters": {"optimizer.lr": {"low": 0.0, "high": 1.0}}},
    "solver.shift = -1": {"parameters": {"solver.shift": {"low": -1.0, "high": 1.0}}},
    "guidance=None": {"objective": {"steps": 5}},
    "steps": {"objective": {"steps": 0, "guidance": 1.0}},
    "weights": {"objective": {"weights": "best", "guidance": 1.0}},
    "variant=rf": {"overrides": ["variant=rf"]},
    "3: Hydra cannot read this word; allowed is key=value": {"overrides": [3]},
    "sampler=['tpe']: allowed are": {"sampler": ["tpe"]},
    "allowed is an integer": {"parameters": {"trainer.steps": {"low": 1, "high": 4}}},
    "unexpected keyword argument 'stepz'": {"objective": {"stepz": 5}},
    "objectives={'clip': 'max', 'fid': 'down'}: allowed are two": {"objectives": {"fid": "down", "clip": "max"}},
    "objectives={'fid': 'min'}: allowed are two": {"objectives": {"fid": "min"}},
    "objectives=fid: allowed are two": {"objectives": "fid"},
    "cannot open the storage": {"storage": "nowhere://x"},
}


@pytest.mark.parametrize("told", MISTAKES)
def test_a_mistake_is_one_line(told: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(GOOD | MISTAKES[told]))
    assert main(["search", "mine.yaml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sweeps: ")
    assert err.count("\n") == 1
    assert told in err
    assert [path.name for path in tmp_path.rglob("*")] in (["mine.yaml"], ["mine.yaml", "runs"], ["runs", "mine.yaml"])


def test_a_study_goes_on_only_as_it_was_begun(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    toy = yaml.safe_load((Path(load.__code__.co_filename).parents[1] / "studies" / "toy.yaml").read_text())
    Path("toy.yaml").write_text(yaml.safe_dump(toy))
    assert main(["search", "toy.yaml", "n_trials=2"]) == 0
    Path("toy.yaml").write_text(yaml.safe_dump({**toy, "seed": 1}))
    assert main(["search", "toy.yaml", "n_trials=3"]) == 2
    assert "study.seed=1, planned 0" in capsys.readouterr().err
    assert main(["search", "toy.yaml", "n_trials=3", "sweep=other"]) == 0


def test_a_study_keeps_its_objectives_in_their_order(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    toy = yaml.safe_load((Path(load.__code__.co_filename).parents[1] / "studies" / "toy.yaml").read_text())
    for objectives in ({"fid": "min", "clip": "max"}, {"clip": "max", "fid": "min"}):
        Path("toy.yaml").write_text(yaml.safe_dump({**toy, "objectives": objectives}, sort_keys=False))
        code = main(["search", "toy.yaml", "n_trials=2"])
    assert code == 2
    assert "study.objectives=['clip:max', 'fid:min'], planned nothing" in capsys.readouterr().err
    Path("toy.yaml").write_text(yaml.safe_dump({**toy, "objectives": {"fid": "min", "geneval": "max"}}))
    assert main(["search", "toy.yaml", "n_trials=2", "sweep=other"]) == 1
    told = "there is no geneval, by which the search judges; there are fid, clip; the same command goes on"
    assert told in capsys.readouterr().err
