"""The command `flowzoo` is the modules that `python -m` runs."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from flowzoo.__main__ import COMMANDS, main


def flowzoo(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["flowzoo", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_every_command_is_a_module() -> None:
    for module, _ in COMMANDS.values():
        assert find_spec(module), module


def test_help_names_every_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert flowzoo(["--help"], monkeypatch) == 0
    told = capfd.readouterr().out
    assert all(f"\n  {name} " in told for name in COMMANDS)


@pytest.mark.parametrize("words", [[], ["trian"], ["--no"]])
def test_what_is_no_command_is_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert flowzoo(words, monkeypatch) == 2
    assert "flowzoo: error: " in capfd.readouterr().err


def test_words_and_exit_code_are_the_modules(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert flowzoo(["sweeps", "list", "demo"], monkeypatch) == 0
    assert "rf" in capfd.readouterr().out.split()
    assert flowzoo(["rank", "--help"], monkeypatch) == 0
    assert flowzoo(["rank", "nowhere.csv"], monkeypatch) == 2
    assert "nowhere.csv" in capfd.readouterr().err


def test_a_part_in_the_working_directory_is_found_and_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "yaml.py").write_text("raise SystemExit('this is not the yaml that is installed')")
    code = """
import atexit, sys
sys.path.pop(0)  # the working directory, which an installed command does not have there
sys.argv = ["flowzoo", "sweeps", "list"]
from flowzoo.__main__ import main
atexit.register(lambda: print(__import__("mine").__name__))
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "mine"
