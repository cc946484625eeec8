"""Evaluating and sampling take the run's own config, and change of it only what sampling and scoring are."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from flowzoo.content import SHIPPED
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.refusal import UserErrors
from flowzoo.runs.store import Run
from flowzoo.runs.trained import launch_trained, load_run


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    monkeypatch.chdir(tmp_path)
    with config_loader() as loader:
        overrides = ["path=edm", "backbone.depth=2", "solver.shift=2", "evaluation.samples=300"]
        (cfg,) = compose_jobs(loader, "train", overrides, multirun=False)
    run = Run.create(cfg)
    (run.path / "checkpoints").mkdir()
    for name in ("best", "last"):
        (run.path / "checkpoints" / f"{name}.ckpt").touch()
    return run


def test_the_runs_own_config_is_the_base(run):
    trained = load_run("evaluate", [f"run={run.path}"])
    assert trained.cfg == run.config
    assert trained.run.path == run.path
    assert trained.options.checkpoint == "best"


def test_values_and_groups_are_changed_where_they_are(run):
    argv = [
        f"run={run.path}",
        "evaluation.samples=500",
        "solver/grid=path",
        "evaluation.settings=[{steps: 3, guidance: 2}]",
    ]
    cfg = load_run("evaluate", argv).cfg
    assert cfg.solver.shift == 2  # the run's own: the group solver was not chosen anew
    assert cfg.solver.grid != run.config.solver.grid
    assert cfg.evaluation.samples == 500
    assert cfg.evaluation.weights == run.config.evaluation.weights
    assert cfg.evaluation.settings == [{"steps": 3, "guidance": 2}]


@pytest.mark.parametrize("turn", [1, -1])
def test_a_group_is_chosen_whole_and_its_parts_after_it(run, turn):
    argv = [f"run={run.path}", *["solver=heun", "solver/grid=karras", "solver.shift=3"][::turn]]
    cfg = load_run("evaluate", argv).cfg
    assert cfg.solver.rule._target_.endswith("Heun")
    assert cfg.solver.grid._target_.endswith("Karras")
    assert cfg.solver.shift == 3
    assert cfg.evaluation.samples == 300


PROMPTS = [
    "a red circle, left of a blue square!",
    "a=b, [x] {y} 'z' \"w\" $HOME ${seed} \\ ~ # é",
    "'quoted'",
    "null",
    "3",
    " spaces ",
    "",
    "${oc.env:HOME}",
    "a ${cat}",
    "${",
    "???",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_taken_as_typed(run, prompt):
    options = load_run("sample", [f"run={run.path}", f"prompt={prompt}", "n=2", "guidance=1"]).options
    assert options.prompt == prompt
    assert (options.n, options.guidance, options.steps, options.weights) == (2, 1, 50, "ema")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_shown_as_typed(run, monkeypatch, capsys, prompt):
    monkeypatch.setattr(sys, "argv", ["sample", f"run={run.path}", f"prompt={prompt}", "--cfg", "job"])
    with pytest.raises(SystemExit) as exit:
        launch_trained("sample", lambda trained: None, lambda trained: None)
    assert exit.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["sample"]["prompt"] == prompt
    assert shown["config"]["sweep"] == "solo"


def test_a_run_is_found_in_the_home_folder(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_run("evaluate", [f"run=~/{run.path}"]).run.path == tmp_path / run.path


def test_a_run_folder_may_hold_what_hydra_would_parse(run):
    odd = run.path.parent / "a=b, [c]"
    run.path.rename(odd)
    assert load_run("evaluate", [f"run={odd}"]).run.path == odd


BAD = [
    ("evaluate", [], "run= is missing"),
    ("evaluate", ["run=nowhere"], "no folder nowhere"),
    ("evaluate", ["run=."], "no run folder"),
    ("evaluate", ["run=RUN", "path=rf"], "path=rf: a trained run keeps its path; allowed are run, checkpoint, solver"),
    ("evaluate", ["run=RUN", "prompt=a"], "prompt=a: flowzoo.evaluate takes none; allowed are run, checkpoint"),
    ("sample", ["run=RUN", "interval=[2,1]"], "interval=[2, 1]: allowed is null or [low, high] of sigma"),
    ("evaluate", ["run=RUN", "trainer.steps=5"], "trainer.steps=5: a trained run keeps"),
    ("evaluate", ["run=RUN", "evaluation.sample=5"], "evaluation.sample=5"),
    ("evaluate", ["run=RUN", "evaluation.samples=0"], "evaluation.samples=0: allowed is an integer of at least 2"),
    ("evaluate", ["run=RUN", "solver=euler_t"], "edm"),
    ("evaluate", ["run=RUN", "solver=rk9"], "rk9"),
    ("evaluate", ["run=RUN", "checkpoint=first"], "checkpoint=first: allowed is best, last"),
    ("evaluate", ["run=RUN", "solver=heun,recombine"], "one value"),
    ("evaluate", ["run=RUN", "+evaluation.x=1"], "allowed is key=value"),
    ("sample", ["run=RUN", "prompt=x", "n=0"], "n=0: allowed is an integer of at least 1"),
    ("sample", ["run=RUN", "prompt=x", "weights=init"], "weights=init: allowed is ema, raw"),
    ("sample", ["run=RUN", "prompt=x", "guidance=-1"], "guidance=-1: allowed is a number of at least 0"),
]


@pytest.mark.parametrize(("command", "argv", "words"), BAD)
def test_mistakes_are_named(run, command, argv, words):
    with pytest.raises(UserErrors) as error:
        load_run(command, [word.replace("RUN", str(run.path)) for word in argv])
    assert words in str(error.value)


def test_a_run_without_a_checkpoint_is_named_with_its_state(run):
    (run.path / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(UserErrors, match=r"there is no best.ckpt yet, the run is queued"):
        load_run("sample", [f"run={run.path}", "prompt=x"])


def test_the_entry_point_checks_calls_and_returns(run, monkeypatch, capsys):
    seen = SimpleNamespace(cfg=None)

    def task(trained):
        seen.cfg = trained.cfg
        return 3

    def check(trained):
        if trained.options.n == 7:
            raise ValueError("n=7")

    for extra, code in (([], 3), (["n=7"], 2), (["-m"], 2), (["--cfg", "job"], 0), (["--help"], 0)):
        monkeypatch.setattr(sys, "argv", ["sample", f"run={run.path}", "prompt=a, b", *extra])
        with pytest.raises(SystemExit) as exit:
            launch_trained("sample", check, task)
        assert exit.value.code == code
    assert seen.cfg == run.config
    assert "flowzoo.sample: n=7\n" in capsys.readouterr().err


def test_a_run_is_where_its_folder_lies_whatever_was_stored(run, tmp_path, monkeypatch):
    moved = tmp_path / "else where" / "b (old)" / "renamed"
    moved.parent.mkdir(parents=True)
    run.path.rename(moved)
    run.path.parent.rmdir()
    run.path.parent.parent.rmdir()
    run.path.parent.parent.write_text("a file where the runs were")
    monkeypatch.chdir(moved)
    for spelled in (str(moved), ".", "../renamed"):
        trained = load_run("evaluate", [f"run={spelled}"])
        assert Path(trained.cfg.runs, trained.cfg.sweep).resolve() == moved.parent
        assert trained.run.path.resolve() == moved


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_a_text_encoders_weights_may_lie_elsewhere_but_hold_the_same(run, tmp_path, command):
    moved, other = tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
    content = SHIPPED.read_bytes()
    moved.write_bytes(content)
    other.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    trained = load_run(command, [f"run={run.path}", f"text.encoders.clip.weights={moved}"])
    assert trained.cfg.text.encoders.clip.weights == str(moved)
    with pytest.raises(ValueError, match="holds other weights"):
        load_run(command, [f"run={run.path}", f"text.encoders.clip.weights={other}"])
