"""Files are whole or what they were before."""

import io
from pathlib import Path

import pytest
import torch

from flowzoo.runs.files import RunError, write_atomically
from flowzoo.training.checkpoint import save


class Interrupting:
    """A file that is interrupted after so many bytes, as by a second Ctrl-C while a checkpoint is written."""

    def __init__(self, path: Path, left: int) -> None:
        self.file, self.left = io.open(path, "wb"), left  # noqa: SIM115, UP020

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            self.left = 10**9
            raise KeyboardInterrupt
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()

    def __enter__(self) -> "Interrupting":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.parametrize("left", [0, 500, 2000, 20_000])
def test_an_interruption_stays_one_whatever_torch_makes_of_it(
    tmp_path: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    write_atomically(path, lambda part: part.write_text("before"))
    content = {f"weights {i}": torch.randn(1000) for i in range(8)}
    monkeypatch.setattr("builtins.open", lambda path, mode: Interrupting(path, left))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, lambda part: save(content, part))
    monkeypatch.undo()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_other_errors_are_told_as_they_are(tmp_path: Path) -> None:
    def full(part: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left"):
        write_atomically(tmp_path / "x", full)
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "x", lambda part: 1 / 0)
    assert not list(tmp_path.iterdir())
