"""What is read from SLURM's commands, here scripts that print what SLURM 22.05 printed."""

import os
from pathlib import Path

import pytest

from flowzoo.runs import slurm as asking
from flowzoo.runs.slurm import NoAnswer
from flowzoo.runs.store import RunError
from sweeps.slurm import (
    SUBMITTED,
    Job,
    all_jobs_of,
    cancel,
    jobs_as_far_as_known,
    jobs_of,
    max_array_size,
    write_record,
)

SQUEUE = """\
7_0|RUNNING|None
7_1|COMPLETING|None
7_2|COMPLETING|None
7_3|PENDING|Resources
"""
SACCT = """\
5|FAILED
7_0|RUNNING
7_1|CANCELLED by 0
7_2|REQUEUED
7_[3-9]|PENDING
8_[0,2-3%2]|CANCELLED by 0
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the commands, each of which notes its calls."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("squeue", SQUEUE), ("sacct", SACCT), ("scontrol", "MaxJobCount = 5\nMaxArraySize   = 1001\n")):
        (commands / f"{name}.txt").write_text(text)
        (commands / name).write_text(f'#!/bin/sh\necho "$@" >> {commands}/{name}.calls\ncat {commands}/{name}.txt\n')
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    return commands


def record(folder: Path, time: str, jobs: dict[str, list[str]]) -> None:
    (folder / SUBMITTED / time).mkdir(parents=True)
    write_record(folder / SUBMITTED / time, jobs)


def test_the_latest_job_of_each_run_with_its_state(tmp_path: Path, said: Path) -> None:
    record(tmp_path, "1", {"5": ["a", "b"], "6": ["f"]})
    record(tmp_path, "1b", {"8_0": ["h"], "8_3": ["i"]})
    record(tmp_path, "2", {"7_0": ["a", "c"], "7_1": ["d"], "7_2": ["e"], "7_3": ["g"], "7_4": ["j"]})
    jobs = jobs_of(tmp_path)
    assert jobs == {
        "a": Job("7_0", "RUNNING"),
        "b": Job("5", "FAILED"),
        "c": Job("7_0", "RUNNING"),
        "d": Job("7_1", "CANCELLED"),
        "e": Job("7_2", "REQUEUED"),
        "f": Job("6", "UNKNOWN"),
        "g": Job("7_3", "PENDING", "Resources"),
        "h": Job("8_0", "CANCELLED"),
        "i": Job("8_3", "CANCELLED"),
        "j": Job("7_4", "UNKNOWN"),
    }
    assert [run for run, job in jobs.items() if job.active] == ["a", "c", "e", "g"]
    for name in ("squeue", "sacct"):
        assert len((said / f"{name}.calls").read_text().splitlines()) == 1


def test_a_job_in_the_queue_counts_more_than_a_later_one_that_ended(tmp_path: Path, said: Path) -> None:
    record(tmp_path, "1", {"7_0": ["a"]})
    record(tmp_path, "2", {"5": ["a"]})
    assert jobs_of(tmp_path) == {"a": Job("7_0", "RUNNING")}
    assert [job.id for job in all_jobs_of(tmp_path)["a"]] == ["7_0", "5"]


def test_without_records_nothing_is_asked(tmp_path: Path, said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs_of(tmp_path) == {}
    assert not (said / "squeue.calls").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs_of(tmp_path) == {}


SILENT = {
    "fails": "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1",
    "fails without a word": "exit 3",
    "hangs": "exec sleep 1000",
    "prints what is no job": "echo welcome to the cluster",
    "is not here": None,
}


@pytest.mark.parametrize("how", SILENT)
def test_no_answer_is_not_an_empty_queue(tmp_path: Path, said: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    record(tmp_path, "1", {"7_0": ["a"]})
    monkeypatch.setattr(asking, "PATIENCE", 0.5)
    replace(said / "squeue", SILENT[how])
    with pytest.raises(NoAnswer, match=r"squeue does not answer: ."):
        jobs_of(tmp_path)
    shown = jobs_as_far_as_known(tmp_path)["a"]
    assert (shown.id, shown.state, shown.active) == ("7_0", "UNKNOWN", False)
    assert shown.reason.startswith("squeue does not answer")
    replace(said / "scancel", "echo Invalid >&2; exit 1")
    with pytest.raises(NoAnswer):
        cancel({"7_0"})


def replace(command: Path, script: str | None) -> None:
    command.unlink(missing_ok=True)
    if script is not None:
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)


def test_without_accounts_a_job_that_ends_may_come_back(tmp_path: Path, said: Path) -> None:
    record(tmp_path, "1", {"7_0": ["a"], "7_1": ["d"], "7_2": ["e"], "9": ["x"]})
    replace(said / "sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    jobs = jobs_of(tmp_path)
    assert jobs == {"a": Job("7_0", "RUNNING"), "d": Job("7_1", "COMPLETING"), "e": Job("7_2", "COMPLETING"),
                    "x": Job("9", "UNKNOWN")}  # fmt: skip
    assert [run for run, job in jobs.items() if job.active] == ["a", "d", "e"]


def test_the_queue_is_asked_in_words_that_every_slurm_knows(
    tmp_path: Path, said: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before 20.02 have no --me, and a user's own SQUEUE_STATES would hide jobs."""
    record(tmp_path, "1", {"7_0": ["a"]})
    replace(said / "squeue", f"env > {said}/env\necho $@ > {said}/squeue.calls\ncat {said}/squeue.txt")
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    assert jobs_of(tmp_path)["a"].state == "RUNNING"
    assert f"--user={os.getuid()}" in (said / "squeue.calls").read_text()
    assert "--me" not in (said / "squeue.calls").read_text()
    assert "SQUEUE_STATES" not in (said / "env").read_text()


def test_a_job_that_has_just_ended_is_no_failure_of_scancel(said: Path) -> None:
    replace(said / "scancel", "echo 'scancel: error: Kill job error on job id 7_1: Invalid job id' >&2; exit 1")
    cancel({"7_1", "7_2", "99"})
    with pytest.raises(NoAnswer, match=r"scancel does not answer: exit code 1, .*Invalid job id"):
        cancel({"7_1", "7_3"})


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, said: Path) -> None:
    record(tmp_path, "1", {"7_0": ["a"]})
    (tmp_path / SUBMITTED / "1" / "jobs.json").write_text('{"7_0":')
    with pytest.raises(RunError, match=r"cannot read .*jobs\.json"):
        jobs_of(tmp_path)


def test_max_array_size(said: Path) -> None:
    assert max_array_size() == 1001
    replace(said / "scontrol", "exit 1")
    with pytest.raises(NoAnswer, match="scontrol does not answer"):
        max_array_size()
