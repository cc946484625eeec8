"""Which runs are tried again, and what is left of them."""

import os

import pytest

import sweeps.retry
from flowzoo.runs.signals import STOPS
from flowzoo.runs.store import Run
from sweeps.__main__ import main
from sweeps.definition import Sweep
from sweeps.manifest import Manifest
from sweeps.plan import plan_of

STATES = ["done", "failed", "preempted", "diverged", "stopped", None]


@pytest.fixture
def manifest(tmp_path, monkeypatch) -> Manifest:
    """One run of each state, the last not begun, each with what training leaves behind."""
    monkeypatch.chdir(tmp_path)
    manifest = plan_of(Sweep("x", ["rf", "eps/linear", "v/cos", "edm/rf", "rf/cosmap", "edm/cos"]))
    manifest.write()
    for planned, state in zip(manifest.runs, STATES, strict=True):
        if state:
            run = Run.create(planned.cfg)
            run.set_status("running")
            run.set_status(state, step=7, exception="Error: no" if state == "failed" else None)
            for name in ("checkpoints/last.ckpt", "samples/grid.png", "metrics.jsonl", "results.csv", "rungs.jsonl"):
                (run.path / name).parent.mkdir(exist_ok=True)
                (run.path / name).write_text("variant,fid,clip\n")
    return manifest


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The variants that are given to the engine, in order; nothing is trained."""
    seen: list[str] = []

    def here(manifest, ids, execution, at_once) -> int:
        seen.extend(manifest.by_id[id].variant for id in ids)
        return 0

    monkeypatch.setattr("sweeps.retry.run_here", here)
    return seen


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("--failed", ["eps/linear"]),
        ("--unfinished", ["eps/linear", "v/cos", "edm/cos"]),
        ("--all", ["rf", "eps/linear", "v/cos", "edm/rf", "rf/cosmap", "edm/cos"]),
    ],
)
def test_which_are_queued_once_more(manifest, trained, which, expected) -> None:
    assert main(["retry", "runs/x", which]) == 0
    assert trained == expected
    for planned, state in zip(manifest.runs, STATES, strict=True):
        run = manifest.run(planned)
        assert run.state == ("queued" if planned.variant in expected and state else state)
        if state:
            assert (run.path / "checkpoints" / "last.ckpt").exists()
            assert run.status["attempt"] == 1
            assert run.status["step"] == 7
            assert run.status["exception"] is None or planned.variant not in expected


def test_from_scratch_leaves_the_config_and_the_others(manifest, trained) -> None:
    config = (manifest.run(manifest.runs[1]).path / "config.yaml").read_text()
    assert main(["retry", "runs/x", "--failed", "--from", "scratch"]) == 0
    failed, other = manifest.run(manifest.runs[1]), manifest.run(manifest.runs[0])
    assert {path.name for path in failed.path.iterdir()} == {"config.yaml", "status.json"}
    assert (failed.path / "config.yaml").read_text() == config
    assert (failed.state, failed.status["step"]) == ("queued", 0)
    assert (other.path / "results.csv").read_text() == "variant,fid,clip\n"


def test_a_run_that_somebody_holds_is_left_alone(manifest, trained, capsys) -> None:
    held = manifest.run(manifest.runs[1])
    with held.lock():
        assert main(["retry", "runs/x", "--all", "--from", "scratch"]) == 0
    assert (held.path / "results.csv").exists()
    assert held.state == "failed"
    assert "eps/linear" not in trained
    assert len(trained) == 5
    assert "it is left alone" in capsys.readouterr().err


def test_a_status_that_cannot_be_read_is_a_failed_one(manifest, trained) -> None:
    path = manifest.run(manifest.runs[0]).path / "status.json"
    path.write_text('{"state": "do')
    assert main(["retry", "runs/x", "--failed"]) == 0
    assert trained == ["rf", "eps/linear"]
    assert manifest.run(manifest.runs[0]).state == "queued"


def test_mistakes_are_refused_before_anything_is_removed(manifest, trained, capsys) -> None:
    for word in ("trainer.steps=3", "engine=many", "trainer.log_every=0"):
        assert main(["retry", "runs/x", "--all", "--from", "scratch", word]) == 2
        assert word.split("=")[0] in capsys.readouterr().err
    assert main(["retry", "runs/nothing", "--all"]) == 2
    with pytest.raises(SystemExit):
        main(["retry", "runs/x"])
    assert trained == []
    assert all((manifest.run(planned).path / "results.csv").exists() for planned in manifest.runs[:5])


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_waits_until_a_run_is_queued_and_let_go(manifest, trained, monkeypatch, number, in_a_terminal) -> None:
    empty = sweeps.retry._empty

    def struck(run: Run) -> None:
        os.kill(os.getpid(), number)
        empty(run)

    monkeypatch.setattr(sweeps.retry, "_empty", struck)
    assert main(["retry", "runs/x", "--all", "--from", "scratch"]) == 130
    first = manifest.run(manifest.runs[0])
    assert first.state == "queued"
    assert sorted(path.name for path in first.path.iterdir()) == ["config.yaml", "status.json"]
    assert trained == []
