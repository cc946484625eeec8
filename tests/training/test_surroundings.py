"""What a machine, a SLURM job among them, lets a run do; what it does not is told before anything is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from flowzoo import train
from flowzoo.build import loop_of
from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import Run, Unfit, attempt
from flowzoo.training.surroundings import check_here, environments_of

Compose = Callable[..., DictConfig]
BATCH = {"SLURM_JOB_ID": "5", "SLURM_JOB_NAME": "x", "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_PROCID": "0"}
TASK = BATCH | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NODEID": "0"}


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Puts this process into a SLURM job."""
    monkeypatch.setattr(rank_zero_only, "rank", rank_zero_only.rank)

    def enter(job: dict[str, str]) -> None:
        monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
        for name, value in job.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(rank_zero_only, "rank", int(job["SLURM_PROCID"]))

    return enter


@pytest.mark.parametrize("job", [BATCH, TASK])
def test_one_device_on_one_node_is_one_process_whatever_the_tasks_of_the_job(
    tiny: Compose, within: Callable[[dict[str, str]], None], job: dict[str, str]
) -> None:
    within(job)
    cfg = tiny("trainer.steps=2")
    train.run(cfg)
    finished = Run(run_folder(cfg))
    assert finished.state == "done"
    assert finished.metrics()


def test_several_devices_are_the_tasks_of_the_step_or_started_by_lightning(
    tiny: Compose, within: Callable[[dict[str, str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    four = tiny("trainer.devices=4", "trainer.strategy=ddp")
    assert environments_of(loop_of(four)) == []
    within(BATCH)  # no srun
    assert [type(env) for env in environments_of(loop_of(four))] == [LightningEnvironment]
    within(TASK)
    (found,) = environments_of(loop_of(four))
    assert isinstance(found, SLURMEnvironment)
    found.validate_settings(num_devices=4, num_nodes=1)
    assert (found.world_size(), found.global_rank()) == (4, 3)
    assert not loop_of(four).is_first_process
    for words in (["trainer.devices=2"], ["trainer.devices=1", "trainer.num_nodes=2"]):
        with pytest.raises(Unfit, match=r"trainer\.devices=. .* in a SLURM step of 4 tasks: allowed is .* srun"):
            environments_of(loop_of(tiny(*words, "trainer.strategy=ddp")))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "trainer.compile=true",
            r"trainer\.compile=true: there is no compiler here \(.*\); allowed is trainer\.compile=false",
        ),
        ("trainer.accelerator=gpu", r"trainer\.accelerator=gpu: there is no GPU here"),
    ],
)
@pytest.mark.parametrize("engine", ["solo", "stacked"])
def test_what_this_machine_lacks_is_told_before_anything_is_written(
    tiny: Compose,
    tiny_words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: str,
    said: str,
    engine: str,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    cfg = tiny(word)
    with pytest.raises(Unfit, match=said):
        attempt(train.run, cfg)
    words = [*tiny_words, word, f"trainer={engine}", f"runs={tmp_path / 'runs'}"]
    words = [w for w in words if not (w == "trainer.accelerator=cpu" and word.startswith("trainer.accelerator"))]
    monkeypatch.setattr("sys.argv", ["train", *words])
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert stopped.value.code in (1, 2)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"flowzoo.train: {word}: there is no ")
    assert not list((tmp_path / "runs").glob("*/*"))


def test_a_compiler_that_is_here_is_no_hindrance(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "sh")
    check_here(loop_of(tiny("trainer.compile=true")))
