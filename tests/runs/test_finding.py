"""Runs are found wherever they lie, each once; what cannot be looked into is named, and no link hangs."""

import json
import os
from pathlib import Path

import pytest

from flowzoo.runs.finding import find, folders_in


def made(folder: Path) -> Path:
    """A run folder, done."""
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "done", "variant": "rf"}')
    return folder


def found(*roots: Path) -> list[str]:
    return sorted(str(run.path) for run in find(roots).runs)


def test_runs_behind_links_are_found(tmp_path) -> None:
    made(tmp_path / "disk" / "sweep" / "rf-s0-00000001")
    made(tmp_path / "disk" / "alone")
    made(tmp_path / "disk" / "others" / "more" / "v")
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "run").symlink_to(tmp_path / "disk" / "alone")
    (runs / "sweep").symlink_to(tmp_path / "disk" / "sweep")
    (runs / "sweeps").symlink_to(tmp_path / "disk" / "others")
    assert found(runs) == [str(runs / name) for name in ("run", "sweep/rf-s0-00000001", "sweeps/more/v")]


def test_what_has_several_names_counts_once_under_its_own(tmp_path) -> None:
    run = made(tmp_path / "z" / "run")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "b").symlink_to("z/run")
    (tmp_path / "z" / "again").symlink_to("run")
    assert found(tmp_path) == [str(run)]
    assert found(tmp_path, tmp_path / "z") == [str(run)]
    assert folders_in(tmp_path / "z") == ["run"]


def test_link_loops_end(tmp_path) -> None:
    run = made(tmp_path / "sweep" / "run")
    (tmp_path / "sweep" / "here").symlink_to(".")
    (tmp_path / "sweep" / "up").symlink_to("..")
    (run / "inside").symlink_to("..")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    search = find([tmp_path])
    assert [one.path for one in search.runs] == [run]
    assert sorted(line.partition(":")[0] for line in search.unreadable) == [
        f"cannot read {tmp_path / name}" for name in ("one", "two")
    ]
    assert "run" in folders_in(tmp_path / "sweep")


def test_a_link_to_nothing_is_named_and_a_run_by_its_name_stays_one(tmp_path) -> None:
    made(tmp_path / "rf-s0-00000001")
    (tmp_path / "rf-s1-00000002").symlink_to("gone")
    (tmp_path / "notes").symlink_to("gone")
    search = find([tmp_path])
    assert search.unreadable == [f"cannot read {tmp_path / 'notes'}: it is a link to gone, which cannot be followed"]
    states = {run.name: run.state for run in search.runs}
    assert states == {"rf-s0-00000001": "done", "rf-s1-00000002": "damaged"}


def test_hidden_folders_searches_and_reports_are_no_runs(tmp_path) -> None:
    run = made(tmp_path / "run")
    made(tmp_path / ".submit" / "source")
    made(tmp_path / "study" / "rf-s0-00000001")
    (tmp_path / "study" / "trials.csv").touch()
    (tmp_path / "report").mkdir()
    for name in ("report.html", "results.csv"):
        (tmp_path / "report" / name).touch()
    assert found(tmp_path) == [str(run)]
    assert find([tmp_path]).searches == [tmp_path / "study"]
    made(tmp_path / "over")
    (tmp_path / "over" / "report.html").touch()  # a report that was written over a run
    assert found(tmp_path) == [str(tmp_path / "over"), str(run)]


@pytest.mark.parametrize("plan", ['{"runs": 2}\n{"id": "a"}\n', '{"runs": 1}\n{"id": "a"}\n{"id"', b"\xff\xfe", None])
def test_a_plan_that_cannot_be_read_is_named_and_its_whole_lines_are_used(tmp_path, plan) -> None:
    made(tmp_path / "run")
    path = tmp_path / "plan.jsonl"
    path.mkdir() if plan is None else path.write_bytes(plan if isinstance(plan, bytes) else plan.encode())
    search = find([tmp_path])
    assert [line.partition(": ")[0] for line in search.unreadable] == [f"cannot read {path}"]
    expected = [("a", "queued"), ("run", "done")] if isinstance(plan, str) else [("run", "done")]
    assert sorted((run.name, run.state) for run in search.runs) == expected


def test_planned_runs_have_the_place_that_the_plan_lies_in(tmp_path) -> None:
    made(tmp_path / "disk" / "anything")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "b").symlink_to("../disk/anything")
    lines = [{"runs": 2}, {"id": "a", "variant": "rf"}, {"id": "b", "variant": "v/cos"}]
    (tmp_path / "sweep" / "plan.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert sorted((run.name, run.state) for run in find([tmp_path / "sweep"]).runs) == [("a", "queued"), ("b", "done")]


def test_a_root_without_runs_is_refused_beside_others_too(tmp_path) -> None:
    made(tmp_path / "a" / "run")
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="b holds no run"):
        find([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match="absent is not a folder"):
        find([tmp_path / "absent"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named(tmp_path) -> None:
    made(tmp_path / "rf-s0-00000001")
    locked = made(tmp_path / "rf-s1-00000002")
    locked.chmod(0)
    try:
        search = find([tmp_path])
        assert search.complaints() == [f"cannot read {locked}: Permission denied"]
    finally:
        locked.chmod(0o700)
