"""Several workers, with tasks that only write: who takes what, who dies, who is asked to stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowzoo.fleet import ATTEMPTS
from flowzoo.runs.identity import run_folder, run_variant
from flowzoo.runs.signals import stoppable
from flowzoo.runs.store import Interrupted, Run
from sweeps.definition import Sweep
from sweeps.manifest import Manifest
from sweeps.plan import plan_of
from sweeps.workers import LOGS, run_parallel

VARIANTS = ["rf", "eps/linear", "v/cos", "edm/rf", "rf/cosmap"]


@pytest.fixture
def manifest(tmp_path, monkeypatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    manifest = plan_of(Sweep("x", VARIANTS))
    manifest.write()
    return manifest


def done(cfg, at_work: int = 1) -> None:
    run = Run.create(cfg)
    with run.lock():
        if run.is_finished:  # as every task looks once it has the lock: another worker was faster
            return
        run.set_status("running")
        run.append_metrics({"step": 1, "process": os.getpid()})
        while len(list(run.path.parent.glob("*/metrics.jsonl"))) < at_work:
            time.sleep(0.01)
        run.set_status("done", step=cfg.trainer.steps)


def done_beside_another(cfg) -> None:
    """Not before another worker is at another run."""
    done(cfg, at_work=2)


def dies(cfg) -> None:
    """The process of rf is killed once, that of v/cos whenever it is tried; eps/linear fails."""
    variant, run = run_variant(cfg), Run.create(cfg)
    with run.lock():
        if run.state in ("done", "failed"):
            return
        run.set_status("running")
        if variant == "v/cos" or (variant == "rf" and run.status["attempt"] == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if variant == "eps/linear":
            raise RuntimeError("no such thing")
        run.set_status("done", step=1)


def sleeps(cfg) -> None:
    run = Run.create(cfg)
    with run.lock():
        try:
            run.set_status("running")
            stoppable(time.sleep)(60)
        except KeyboardInterrupt:
            run.set_status("preempted", step=1)
            raise Interrupted("saved") from None


def states(manifest: Manifest) -> dict[str, str | None]:
    return {planned.variant: manifest.run(planned).state for planned in manifest.runs}


def ids(manifest: Manifest) -> list[str]:
    return [planned.id for planned in manifest.runs]


def test_all_are_trained_once_by_several(manifest, capfd) -> None:
    assert run_parallel(manifest, ids(manifest), [], 3, task=done_beside_another) == 0
    assert set(states(manifest).values()) == {"done"}
    records = [manifest.run(planned).metrics() for planned in manifest.runs]
    assert all(len(of_run) == 1 for of_run in records)
    assert 1 < len({of_run[0]["process"] for of_run in records}) <= 3
    capfd.readouterr()  # a worker may have come to a run that another one had just finished
    assert run_parallel(manifest, ids(manifest), [], 3, task=done) == 0
    assert capfd.readouterr().out.count("already there") == len(VARIANTS)


def test_what_a_killed_worker_held_goes_on_and_what_kills_its_worker_fails(manifest, capfd) -> None:
    assert run_parallel(manifest, ids(manifest), [], 2, task=dies) == 1
    assert states(manifest) == {
        **{"rf": "done", "eps/linear": "failed", "v/cos": "failed", "edm/rf": "done", "rf/cosmap": "done"}
    }
    status = {planned.variant: manifest.run(planned).status for planned in manifest.runs}
    assert (status["rf"]["attempt"], status["v/cos"]["attempt"]) == (2, ATTEMPTS)
    assert "SIGKILL" in status["v/cos"]["exception"]
    out, err = capfd.readouterr()
    assert "failed: v/cos, seed 0" in err
    assert "failed: eps/linear, seed 0: RuntimeError: no such thing" in err
    logs = "".join(path.read_text() for path in (manifest.folder / LOGS).glob("*.log"))
    assert "no such thing" in logs
    assert "Traceback" not in out + err


def test_a_run_with_a_damaged_status_keeps_no_other_from_being_trained(manifest, capfd) -> None:
    damaged = manifest.run(manifest.runs[0])
    damaged.path.mkdir()
    (damaged.path / "status.json").touch()
    assert run_parallel(manifest, ids(manifest)[:2], [], 2, task=done) == 1
    assert manifest.run(manifest.runs[1]).state == "done"
    assert "status.json" in capfd.readouterr().err


def test_an_impossible_word_starts_nothing(manifest) -> None:
    for word in ("data.workers=-1", "trainer.steps=3", "trainer.log_every=0"):
        with pytest.raises(ValueError, match=word.split("=")[0]):
            run_parallel(manifest, ids(manifest), [word], 2, task=done)
    assert not (manifest.folder / LOGS).exists()


LAUNCHER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_workers import ids, sleeps
from sweeps.manifest import Manifest
from sweeps.workers import run_parallel
if __name__ == "__main__":
    manifest = Manifest.read("runs/x")
    sys.exit(run_parallel(manifest, ids(manifest), [], 2, task=sleeps))
"""


@pytest.mark.parametrize("who", ["launcher is asked", "worker is asked", "launcher is killed"])
def test_who_is_asked_to_stop_saves_and_the_rest_waits(manifest, who, in_a_terminal) -> None:
    Path("launch.py").write_text(LAUNCHER)
    launcher = subprocess.Popen([sys.executable, "launch.py", str(Path(__file__).parent)], stderr=subprocess.PIPE)
    running: list[dict] = []
    deadline = time.monotonic() + 600
    while len(running) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        status = [manifest.run(planned).status for planned in manifest.runs]
        running = [one for one in status if one.get("state") == "running"]
    if who == "worker is asked":
        os.kill(running[0]["pid"], signal.SIGTERM)
    else:
        launcher.send_signal(signal.SIGINT if who == "launcher is asked" else signal.SIGKILL)
    _, told = launcher.communicate(timeout=600)
    while "running" in states(manifest).values() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sorted(map(str, states(manifest).values())) == ["None", "None", "None", "preempted", "preempted"]
    if who != "launcher is killed":
        assert launcher.returncode == 130
        assert b"5 of 5 runs to go; the same command goes on" in told
    for planned in manifest.runs[:2]:
        with manifest.run(planned).lock():  # nobody holds it any more
            pass


def test_the_folder_may_have_moved(manifest, tmp_path) -> None:
    moved = tmp_path / "elsewhere" / "y"
    moved.parent.mkdir()
    manifest.folder.rename(moved)
    manifest = Manifest.read(moved)
    assert run_parallel(manifest, ids(manifest)[:2], [], 2, task=done) == 0
    assert not (tmp_path / "runs" / "x").exists()
    cfg = manifest.run(manifest.runs[0]).config
    assert run_folder(cfg) == moved / manifest.runs[0].id
