"""What is packed into which job, what a job asks for, and what it imports."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

from flowzoo.runs.identity import run_folder
from flowzoo.runs.lock import RunLock
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
    with pytest.raises(RunError, match=r"cluster\.parallel=0: allowed are integers from 1"):
        cluster_of(["cluster.parallel=0"])


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
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Work]:
    """What sbatch would have got."""
    tasks: list[Work] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "is_here", lambda: True)
    monkeypatch.setattr(slurm, "jobs_of", lambda _: {})
    monkeypatch.setattr(slurm, "max_array_size", lambda: 9)
    monkeypatch.setattr("sweeps.submit._executor", lambda *_: None)
    monkeypatch.setattr("sweeps.submit._sbatch", lambda _, given: [str(tasks.append(task)) for task in given])
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
    assert cancelled == ["2", "3"]
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
