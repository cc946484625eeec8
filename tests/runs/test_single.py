"""Commands that do one thing: flags, exit codes, what is told."""

import sys

import pytest
from omegaconf import DictConfig

from flowzoo.runs.single import arguments_of_one, launch_single
from flowzoo.runs.store import Diverged, Interrupted, RunError


@pytest.mark.parametrize(
    "flags", [["-m"], ["--config-path", "x"], ["--config-name", "x"], ["--experimental-rerun", "x"]]
)
def test_flags_for_several_jobs_or_another_config_are_refused(monkeypatch, capsys, flags) -> None:
    monkeypatch.setattr(sys, "argv", ["sample", *flags, "run=x"])
    with pytest.raises(SystemExit) as ended:
        arguments_of_one("sample", "run=DIR, ")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told == "flowzoo.sample: allowed are run=DIR, key=value, --config-dir, --cfg job and --help\n"


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (None, 0, ""),
        (ValueError("lr=0: allowed is more"), 2, "lr=0: allowed is more"),
        (RunError("somebody trains it"), 2, "somebody trains it"),
        (Diverged("diverged at step 3"), 1, "diverged at step 3: lower seed=1"),
        (Interrupted("stopped at step 3"), 130, "stopped at step 3; the same command goes on from here"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on from here"),
    ],
    ids=repr,
)
def test_what_a_task_raises_is_an_exit_code_and_one_line(monkeypatch, capsys, raised, code, told) -> None:
    def task(cfg: DictConfig) -> None:
        assert cfg.seed == 1
        if raised is not None:
            raise raised

    monkeypatch.setattr(sys, "argv", ["train_clip", "seed=1"])
    with pytest.raises(SystemExit) as ended:
        launch_single("train_clip", task, rate="seed")
    assert ended.value.code == code
    assert capsys.readouterr().err == (told and f"flowzoo.train_clip: {told}\n")


def test_a_bug_keeps_its_traceback(monkeypatch) -> None:
    def task(cfg: DictConfig) -> None:
        raise KeyError("x")

    monkeypatch.setattr(sys, "argv", ["train_clip"])
    with pytest.raises(KeyError):
        launch_single("train_clip", task)
