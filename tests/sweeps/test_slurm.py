"""What is read from SLURM's commands, here scripts that print what SLURM 22.05 printed."""

from pathlib import Path

import pytest

from flowzoo.runs.store import RunError
from sweeps.slurm import SUBMITTED, Job, all_jobs_of, jobs_of, max_array_size, write_record

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


def test_without_slurm_or_records_nothing_is_asked(tmp_path: Path, said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs_of(tmp_path) == {}
    assert not (said / "squeue.calls").exists()
    record(tmp_path, "1", {"7_0": ["a"]})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs_of(tmp_path) == {}


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, said: Path) -> None:
    record(tmp_path, "1", {"7_0": ["a"]})
    (tmp_path / SUBMITTED / "1" / "jobs.json").write_text('{"7_0":')
    with pytest.raises(RunError, match=r"cannot read .*jobs\.json"):
        jobs_of(tmp_path)


def test_max_array_size(said: Path) -> None:
    assert max_array_size() == 1001
