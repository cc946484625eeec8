"""What is packed into which job, what a job asks for, and what it imports."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

import sweeps.sbatch
import sweeps.submit
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.identity import run_folder
from flowzoo.runs.lock import RunLock
from flowzoo.runs.signals import STOPS
from flowzoo.runs.store import Run, RunError
from sweeps import slurm
from sweeps.__main__ import main
from sweeps.cluster import cluster_of, split_cluster
from sweeps.definition import Sweep
from sweeps.plan import plan_of
from sweeps.snapshot import exports, take
from sweeps.submit import Work, _packs, submit
from sweeps.words import execute


def planned(*words: str) -> list[DictConfig]:
    return [run.cfg for run in plan_of(Sweep("x", ["rf", "eps/linear", "v/cos"]), ["seed=0,1", *words]).runs]


@pytest.mark.parametrize(("runs_per_job", "sizes"), [(1, [1] * 6), (4, [3, 3]), (9, [6])])
def test_every_run_is_in_one_job(runs_per_job: int, sizes: list[int]) -> None:
    cfgs = planned()
    ((shape, packs),) = _packs(cfgs, runs_per_job)
    assert shape == (1, 1)
    assert [len(pack) for pack in packs] == sizes
    assert [id for pack in packs for id in pack] == [run_folder(cfg).name for cfg in cfgs]


def test_a_stack_is_a_job() -> None:
    cfgs = planned()
    whole = _packs(execute(cfgs, ["engine=stacked"]), 1)
    assert [len(pack) for _, packs in whole for pack in packs] == [6]
    cut = _packs(execute(cfgs, ["engine=stacked", "stack.size=4"]), 1)
    assert [len(pack) for _, packs in cut for pack in packs] == [3, 3]


def test_a_run_of_several_processes_asks_for_as_many_tasks() -> None:
    cfgs = planned("trainer.devices=4", "trainer.num_nodes=2", "trainer.strategy=ddp")
    ((shape, packs),) = _packs(cfgs, 1)
    assert (shape, len(packs)) == ((2, 4), 6)
    with pytest.raises(ValueError, match=r"cluster\.runs_per_job=2.*allowed is 1"):
        _packs(cfgs, 2)


def test_the_words_of_the_cluster() -> None:
    words = ["path=rf", "cluster.partition=p", "+cluster.sbatch.nice=5", "cluster.setup=[module load x]"]
    ours, others = split_cluster(words)
    assert others == ["path=rf"]
    asked = cluster_of(ours).parameters()
    assert asked["slurm_partition"] == "p"
    assert asked["slurm_additional_parameters"] == {"nice": 5}
    assert not {"mem_gb", "slurm_account"} & asked.keys()  # the cluster's own defaults


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cluster.parallel=0", r"cluster\.parallel=0: allowed are integers from 1"),
        ("cluster.timeout_min=true", r"cluster\.timeout_min=True: allowed are integers from 1"),
        ("cluster.timeout_min=1.5", "allowed are integers from 1"),
        ("cluster.timeout_min=null", "allowed are integers from 1"),
        ("cluster.timeout_min=1:30", "allowed are integers from 1"),
        ("cluster.mem_gb=true", "allowed are numbers above 0"),
        ("cluster.mem_gb=nan", "allowed are numbers above 0"),
        ("cluster.setup=1", "allowed is a list of shell lines"),
        ("+cluster.sbatch.time=10", r"cluster\.sbatch\.time: allowed is cluster\.timeout_min"),
        ("+cluster.sbatch.time_min=10", r"allowed is cluster\.timeout_min"),
        ("+cluster.sbatch.signal=USR1@500", r"allowed is cluster\.notice_s"),
        ("+cluster.sbatch.array=0-3", "this command decides it"),
        # told to stop as it starts, and requeued, and told to stop
        ("cluster.timeout_min=1", r"cluster\.notice_s=120 with cluster\.timeout_min=1: .* at least 4"),
        ("cluster.timeout_min=3", r"cluster\.timeout_min of at least 4"),
        ("cluster.notice_s=20000", r"cluster\.timeout_min of at least 335"),
    ],
)
def test_what_no_job_can_be_asked_with_is_refused(word: str, said: str) -> None:
    with pytest.raises(RunError, match=said):
        cluster_of([word])


def test_the_shortest_limit_for_a_notice() -> None:
    assert cluster_of(["cluster.timeout_min=4"]).timeout_min == 4
    assert cluster_of(["cluster.timeout_min=2", "cluster.notice_s=30"]).notice_s == 30
    words = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=1", "seed=0,1"]
    with config_loader() as loader, pytest.raises(ValueError, match=r"hydra\.launcher\.timeout_min=1: .* at least 4"):
        compose_jobs(loader, "train", words, True)


def test_a_cluster_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "lab.yaml").write_text("defaults: [slurm]\npartition: mine\n")
    ours, others = split_cluster(["cluster=lab", f"hydra.searchpath=[file://{tmp_path}]"])
    assert cluster_of(ours).partition == "mine"
    assert others == [f"hydra.searchpath=[file://{tmp_path}]"]  # of the sweep as well


def test_without_slurm_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["submit", "demo"]) == 2
    assert "there is no SLURM here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SLURM's commands, which succeed and print nothing, in a folder that holds nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in slurm.COMMANDS:
        command(folder / name, "exit 0")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return folder


def command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_where_squeue_does_not_answer_nothing_is_submitted_written_or_removed(
    bin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(bin / "squeue", "echo squeue: unrecognized option >&2; exit 1")
    assert main(["submit", "demo"]) == 2
    assert capsys.readouterr().err == "sweeps: squeue does not answer: exit code 1, squeue: unrecognized option\n"
    assert list(Path().iterdir()) == []
    manifest = plan_of(Sweep("x", ["rf"]), [])
    manifest.write()
    run = Run.create(manifest.runs[0].cfg)
    run.set_status("failed")
    (run.path / "results.csv").touch()
    for words in (["--submit"], ["--submit", "cluster.timeout_min=0"]):
        assert main(["retry", "runs/x", "--failed", "--from", "scratch", *words]) == 2
        assert re.search("squeue does not answer|timeout_min=0", capsys.readouterr().err)
        assert (run.path / "results.csv").exists()
        assert run.state == "failed"


def test_where_squeue_does_not_answer_cancel_says_so(bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = plan_of(Sweep("x", ["rf"]), [])
    manifest.write()
    submission = manifest.folder / slurm.SUBMITTED / "1"
    submission.mkdir(parents=True)
    slurm.write_record(submission, {"7": [manifest.runs[0].id]})
    for script in ("exit 1", "echo banner"):
        command(bin / "squeue", script)
        assert main(["cancel", "runs/x"]) == 2
        assert "squeue does not answer" in capsys.readouterr().err
    (bin / "squeue").unlink()
    assert main(["cancel", "runs/x"]) == 2
    assert main(["status", "runs/x", "--json"]) == 0
    assert "squeue does not answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no partition >&2; exit 1", "sbatch: no partition"),
        ("exit 1", "sbatch: it failed without a word"),
        ("exec sleep 1000", "sbatch does not answer.*look with squeue"),
        ("echo welcome", "sense of sbatch output.*look with squeue"),
    ],
)
def test_where_sbatch_fails_or_does_not_answer_this_is_said(
    bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str, said: str
) -> None:
    monkeypatch.setattr("sweeps.sbatch.PATIENCE", 1.0)
    command(bin / "sbatch", script)
    assert main(["submit", "demo", "runs=r"]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not list(Path("r/demo").glob(".submit/*/jobs.json"))


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """What sbatch would have got."""
    tasks: list[Work] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "check", lambda: None)
    monkeypatch.setattr(slurm, "jobs_of", lambda _: {})
    monkeypatch.setattr(slurm, "max_array_size", lambda: 9)
    monkeypatch.setattr("sweeps.submit.executor_of", lambda *_: None)
    monkeypatch.setattr("sweeps.sbatch._sbatch", lambda _, given: [str(tasks.append(task)) for task in given])
    return tasks


def test_one_submission_at_a_time(submitted: list[Work]) -> None:
    manifest = plan_of(Sweep("x", ["rf"]), [])
    manifest.write()
    ids = [run.id for run in manifest.runs]
    (manifest.folder / slurm.SUBMITTED).mkdir()
    other = RunLock(manifest.folder / slurm.SUBMITTED)
    assert other.acquire() is None
    with pytest.raises(RunError, match="is being submitted by process"):
        submit(manifest, ids)
    assert submitted == []
    other.release()
    assert submit(manifest, ids) == 0
    assert [task.ids for task in submitted] == [tuple(ids)]
    assert not list((manifest.folder / slurm.SUBMITTED).glob(".lock*"))


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("during", ["_sbatch", "_packs"])
def test_a_signal_neither_leaves_a_lock_nor_forgets_a_job(
    submitted: list[Work], monkeypatch: pytest.MonkeyPatch, in_a_terminal: None, during: str, number: int
) -> None:
    manifest = plan_of(Sweep("x", ["rf"]), [])
    manifest.write()
    ids = [run.id for run in manifest.runs]
    where = sweeps.sbatch if during == "_sbatch" else sweeps.submit
    called = getattr(where, during)

    def struck(*args: object) -> object:
        os.kill(os.getpid(), number)
        return called(*args)

    monkeypatch.setattr(where, during, struck)
    with pytest.raises(KeyboardInterrupt):
        submit(manifest, ids)
    assert [list(jobs.values()) for jobs in slurm.records(manifest.folder)] == [[ids] for _ in submitted]
    assert len(submitted) == (during == "_sbatch")
    assert not list((manifest.folder / slurm.SUBMITTED).glob(".lock*"))


def test_a_run_with_a_damaged_status_keeps_no_other_from_being_submitted(submitted: list[Work]) -> None:
    manifest = plan_of(Sweep("x", ["rf", "edm/rf", "v/cos"]), [])
    manifest.write()
    damaged, done, _ = (manifest.run(planned) for planned in manifest.runs)
    Run.create(manifest.runs[1].cfg).set_status("done")
    assert done.is_finished
    damaged.path.touch()
    ids = [run.id for run in manifest.runs]
    assert submit(manifest, ids) == 0
    assert [task.ids for task in submitted] == [(ids[0],), (ids[2],)]


def test_every_job_of_a_run_is_cancelled(
    submitted: list[Work], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan_of(Sweep("x", ["rf"]), []).write()
    (id,) = (run.id for run in plan_of(Sweep("x", ["rf"]), []).runs)
    jobs = [slurm.Job("1", "FAILED"), slurm.Job("2", "RUNNING"), slurm.Job("3", "PENDING")]
    monkeypatch.setattr(slurm, "all_jobs_of", lambda _: {id: jobs})
    cancelled: list[str] = []
    monkeypatch.setattr(slurm, "cancel", cancelled.extend)
    Path("runs/x", id).touch()  # what lies there matters not
    assert main(["cancel", "runs/x"]) == 0
    assert sorted(cancelled) == ["2", "3"]
    assert capsys.readouterr().out.splitlines() == [f"cancelled job {job} with {id} of runs/x" for job in "23"]


def test_jobs_import_the_copy_and_not_what_is_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a module from elsewhere, and also where the job starts in the folder of the source."""
    (tmp_path / "edited").mkdir()
    module = tmp_path / "edited" / "law_of_mine.py"
    module.write_text("value = 1\n")
    monkeypatch.syspath_prepend(module.parent)
    monkeypatch.chdir(module.parent)
    take([{"sampler": {"_target_": "law_of_mine.Law"}}], tmp_path / "source")
    module.write_text("value = 2\n")
    script = "import flowzoo, sweeps, law_of_mine as l; print(flowzoo.__file__, sweeps.__file__, l.__file__, l.value)"
    shell = "\n".join([*exports(tmp_path / "source"), f"{sys.executable} -c '{script}'"])
    said = subprocess.run(["bash", "-ec", shell], capture_output=True, text=True, check=True).stdout.split()
    assert said.pop() == "1"
    assert all(path.startswith(str(tmp_path / "source")) for path in said)
