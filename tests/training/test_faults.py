"""Full disks and damaged files: one clear line, a failed run, nothing done before lost; the same call goes on."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import Run, RunError, attempt
from flowzoo.stacks import run_stacks
from flowzoo.train import run as run_one
from flowzoo.training import checkpoint

WORDS = ("trainer.steps=6", "trainer.checkpoint_every=2", "trainer.val_every=3")


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Within the block the system refuses to write past `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def parts(run: Run) -> list[str]:
    """What is left of files that were being written, and of locks."""
    return [p.name for p in run.path.rglob("*") if p.name.endswith(".part") or p.name.startswith(".")]


def last(run: Run) -> dict[str, torch.Tensor]:
    return checkpoint.load(run.path / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.fixture
def twin(tiny: Callable[..., DictConfig]) -> Run:
    """The same run, undisturbed."""
    cfg = tiny(*WORDS, runs="twin")
    run_one(cfg)
    return Run(run_folder(cfg))


def test_a_disk_that_fills_up_costs_nothing_that_was_saved(
    tiny: Callable[..., DictConfig], twin: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(*WORDS)
    run = Run(run_folder(cfg))
    with no_file_larger_than(0), pytest.raises(RunError, match=r"(cannot write|cannot lock) .*: File too large"):
        attempt(run_one, cfg)
    real, saved = checkpoint.save, []

    def second_time(content: dict, path: Path) -> None:
        saved.append(path.name)
        with no_file_larger_than(4000 if len(saved) > 1 else resource.RLIM_INFINITY):
            real(content, path)

    monkeypatch.setattr(checkpoint, "save", second_time)
    with pytest.raises(RunError, match=r"^cannot write .*best\.ckpt: File too large$"):
        attempt(run_one, cfg)
    monkeypatch.undo()
    assert run.state == "failed"
    assert run.status["exception"].startswith("OSError: cannot write ")
    assert parts(run) == []
    assert checkpoint.step_of(run.path / "checkpoints" / "last.ckpt") == 2
    attempt(run_one, cfg)
    assert run.state == "done"
    torch.testing.assert_close(last(run), last(twin), rtol=0, atol=0)
    scores = [[(row["weights"], row["steps"], row["fid"], row["clip"]) for row in one.rows()] for one in (run, twin)]
    assert scores[0] == scores[1]


def test_a_checkpoint_cut_short_is_named_with_what_to_do(twin: Run) -> None:
    cfg = twin.config
    twin.set_status("preempted")
    path, best = (twin.path / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    whole = best.read_bytes()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RunError, match=r"cannot read .*/last\.ckpt, it is cut short .* --from scratch"):
        attempt(run_one, cfg)
    assert twin.state == "failed"
    assert best.read_bytes() == whole
    path.unlink()
    attempt(run_one, cfg)
    assert twin.state == "done"


def test_a_stack_with_a_damaged_member_fails_in_one_line_each(
    tiny_jobs: Callable[..., list[DictConfig]], capsys: pytest.CaptureFixture[str]
) -> None:
    cfgs = tiny_jobs(*WORDS, "trainer=stacked", "trainer.accelerator=cpu", "path=rf,v_cos", "stack.processes=1")
    folders = [run_folder(cfg) for cfg in cfgs]
    (folders[0] / "checkpoints").mkdir(parents=True)
    (folders[0] / "checkpoints" / "last.ckpt").write_bytes(b"")
    assert run_stacks(cfgs) == 1
    assert [Run(folder).state for folder in folders] == ["failed", "failed"]
    printed = capsys.readouterr().err
    assert printed.count("failed: ") == 2
    assert "Traceback" not in printed
    (folders[0] / "checkpoints" / "last.ckpt").unlink()
    assert run_stacks(cfgs) == 0
