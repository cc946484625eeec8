"""The objective that trains: trials are ordinary runs, and what changes no weight trains nothing."""

import csv
from pathlib import Path

import pytest
import yaml

import flowzoo.train
from flowzoo.runs.store import Run, RunBusy
from sweeps.__main__ import main
from sweeps.search.objective import Busy
from sweeps.search.training import Training

TINY = [
    *("path=rf", "sampler=lognorm", "text=words", "text.encoders.words.length=4", "data.source.image_size=16"),
    *("data.source.size=128", "backbone.depth=1", "backbone.width=32", "backbone.heads=1", "trainer.accelerator=cpu"),
    *("trainer.batch_size=8", "trainer.val_samples=8", "trainer.steps=2", "trainer.val_every=2", "evaluation=quick"),
    *("evaluation.samples=66", "evaluation.batch_size=66", "evaluation.reference=70"),
]
M = {"low": -1.0, "high": 1.0}


def study(tmp_path: Path, parameters: dict, n: int, **objective) -> str:
    content = {"parameters": parameters, "n_trials": n, "overrides": TINY, "objective": {"steps": 2, **objective}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "tiny.yaml")


def trials(folder: Path) -> list[dict[str, str]]:
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Instead of training, a run becomes what its m says; its folders are collected."""
    runs: list[Run] = []

    def train(cfg) -> None:
        run = Run.create(cfg)
        runs.append(run)
        if 0 < cfg.sampler.m < 0.1:
            raise RunBusy("somebody has it")
        if cfg.sampler.m > 0:
            run.set_status("diverged" if cfg.sampler.m > 0.5 else "stopped")
            return
        (setting,) = cfg.evaluation.settings
        row = {"weights": "ema", "rule": "recombine", "grid": "common", "shift": cfg.solver.shift, **setting}
        run.write_rows([{**row, "n_samples": cfg.evaluation.samples, "fid": -10 * cfg.sampler.m, "clip": 0.2}])
        run.set_status("done")

    monkeypatch.setattr("flowzoo.train.run", train)
    return runs


def test_what_a_trial_comes_to(trained: list[Run], tmp_path: Path) -> None:
    made = Training("tiny", [*TINY, f"runs={tmp_path}"], steps=2, guidance=1.0)
    made.check({"sampler.m": -1.0}, {"sampler.m": 1.0})
    verdicts = [made.judge([{"sampler.m": m}])[0] for m in (-0.5, 0.75, 0.25)]
    assert [(v.scores, v.ended) for v in verdicts] == [
        ({"fid": 5.0, "clip": 0.2}, "done"),
        (None, "diverged"),
        (None, "stopped"),
    ]
    assert [v.run for v in verdicts] == [run.path.name for run in trained]
    assert made.judge([{"sampler.m": -0.5}]) == verdicts[:1]
    assert len(trained) == 3  # what is done is not trained again
    with pytest.raises(Busy):
        made.judge([{"sampler.m": 0.05}])


def test_interrupted_and_failing(trained: list[Run], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    name = study(tmp_path, {"sampler.m": {"low": -1.0, "high": -0.1}}, 4, guidance=1.0)
    real, calls = flowzoo.train.run, []

    def faulty(cfg) -> None:
        calls.append(cfg.sampler.m)
        if len(calls) == 2:
            raise KeyboardInterrupt
        if len(calls) == 4:
            raise OSError("once only")
        real(cfg)

    monkeypatch.setattr(flowzoo.train, "run", faulty)
    assert main(["search", name]) == 130
    assert [row["state"] for row in trials(tmp_path / "runs" / "tiny")] == ["done", "queued"]
    assert "the same command goes on" in capsys.readouterr().err
    assert main(["search", name]) == 0
    rows = trials(tmp_path / "runs" / "tiny")
    assert [row["state"] for row in rows] == ["done"] * 4
    assert (calls[1], calls[3]) == (calls[2], calls[4])  # the same trial again
    assert [float(row["fid"]) for row in rows] == [-10 * float(row["sampler.m"]) for row in rows]
    assert "once only" in capsys.readouterr().err
    assert main(["search", name]) == 0  # nothing to do
    assert len(calls) == 6


def test_guidance_and_shift_train_nothing(tmp_path: Path, monkeypatch, random_extractor: list[str]) -> None:
    """Really trained: one run, one row a trial."""
    monkeypatch.chdir(tmp_path)
    name = study(tmp_path, {"guidance": {"low": 1.0, "high": 3.0}, "solver.shift": {"low": 0.5, "high": 2.0}}, 3)
    assert main(["search", name, *random_extractor]) == 0
    folder = tmp_path / "runs" / "tiny"
    rows = trials(folder)
    (run,) = {row["run"] for row in rows}
    assert Run(folder / run).status["attempt"] == 1
    told = {(float(r["guidance"]), float(r["solver.shift"])): (float(r["fid"]), float(r["clip"])) for r in rows}
    assert told == {(r["guidance"], r["shift"]): (r["fid"], r["clip"]) for r in Run(folder / run).rows()}
    assert len(told) == 3


def test_a_batch_is_one_stack(tmp_path: Path, monkeypatch, capsys, random_extractor: list[str]) -> None:
    """Also where its trials are judged at guidances of their own; an odd rest is a smaller one."""
    monkeypatch.chdir(tmp_path)
    name = study(tmp_path, {"sampler.m": M, "guidance": {"low": 1.0, "high": 3.0}}, 3)
    assert main(["search", name, "engine=stacked", "stack.size=2", *random_extractor]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.endswith("in 1 stack")] == [
        "2 variants in 1 stack",
        "1 variant in 1 stack",
    ]
    rows = trials(tmp_path / "runs" / "tiny")
    assert [row["state"] for row in rows] == ["done"] * 3
    for row in rows:
        judged = Run(tmp_path / "runs" / "tiny" / row["run"]).rows()
        assert (float(row["guidance"]), float(row["fid"])) in [(r["guidance"], r["fid"]) for r in judged]
