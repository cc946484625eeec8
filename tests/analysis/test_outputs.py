"""No output is written over what it is made from, nor over anything that is not an earlier output."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_runs import write_run

from analysis import rank, report

TABLE = "variant,fid,clip\na,1,0.2\nb,2,0.3\n"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def linked(path: Path) -> Path:
    path.with_name("link.csv").symlink_to(path)
    return path.with_name("link.csv")


def hard_linked(path: Path) -> Path:
    os.link(path, path.with_name("hard.csv"))
    return path.with_name("hard.csv")


def by_linked_folder(path: Path) -> Path:
    path.parent.with_name("other").symlink_to(path.parent)
    return path.parent.with_name("other") / path.name


SPELLINGS: list[Callable[[Path], Path]] = [
    lambda path: path,
    lambda path: path.parent / ".." / path.parent.name / path.name,
    lambda path: Path(os.path.relpath(path)),
    linked,
    hard_linked,
    by_linked_folder,
]


@pytest.mark.parametrize("option", ["-o", "--scores"])
@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_ranking_is_never_written_over_its_input(tmp_path: Path, capsys, option: str, spelled) -> None:
    (tmp_path / "in").mkdir()
    (path := tmp_path / "in" / "x.csv").write_text(TABLE)
    output = spelled(path)
    before = contents(tmp_path)
    assert rank.main([str(path), option, str(output)]) == 2
    assert f"error: {option} {output}: this file is the input" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("option", ["-o", "--scores"])
@pytest.mark.parametrize(
    "output",
    ["run/results.csv", "run/new.csv", "run/checkpoints/new.csv", "plan.jsonl", "notes.txt", ".", "link/new.csv"],
)
def test_a_ranking_is_never_written_over_runs_or_what_others_wrote(tmp_path: Path, capsys, option, output) -> None:
    run = write_run(tmp_path / "runs", "rf")
    run.rename(tmp_path / "runs" / "run")
    (tmp_path / "runs" / "run" / "checkpoints").mkdir()
    (tmp_path / "runs" / "link").symlink_to("run")
    (tmp_path / "runs" / "plan.jsonl").write_text('{"sweep": "x", "runs": 0}\n')
    (tmp_path / "runs" / "notes.txt").write_text("mine\n")
    before = contents(tmp_path)
    assert rank.main([str(tmp_path / "runs"), option, str(tmp_path / "runs" / output)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {option} {tmp_path / 'runs' / output}: this ")
    assert "; allowed is " in told
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["kept.csv", "kept.txt"])
def test_an_earlier_ranking_is_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.csv").write_text(TABLE)
    given = [str(tmp_path / "x.csv"), "-o", str(tmp_path / name), "--scores", str(tmp_path / "scores.csv")]
    assert rank.main(given) == 0
    first = contents(tmp_path)
    (tmp_path / "x.csv").write_text(TABLE + "c,3,0.1\n")
    assert rank.main(given) == 0
    second = contents(tmp_path)
    assert first.keys() == second.keys()
    assert all(first[path] != second[path] for path in first)
    assert rank.main([*given[:3], "--scores", given[2]]) == 2
    assert contents(tmp_path) == second


def test_a_device_takes_a_ranking(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(TABLE)
    assert rank.main([str(tmp_path / "x.csv"), "-o", "/dev/null"]) == 0


@pytest.mark.parametrize("output", ["run", "run/report", "link", "run/../run", "mine", "mine/report.md"])
def test_a_report_is_never_written_into_a_run_or_over_what_others_wrote(tmp_path: Path, capsys, output: str) -> None:
    run = write_run(tmp_path / "runs", "rf")
    run.rename(tmp_path / "runs" / "run")
    (tmp_path / "runs" / "link").symlink_to("run")
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "runs" / "mine" / "report.md").write_text("# Mine\n")
    (tmp_path / "runs" / "mine" / "report.html").write_text("<html>of a test\n")
    before = contents(tmp_path)
    target = tmp_path / "runs" / output
    assert report.main([str(tmp_path / "runs" / "run"), "-o", str(target)]) == 2
    assert capsys.readouterr().err.startswith(f"error: -o {target}: ")
    assert contents(tmp_path) == before


def test_a_report_replaces_an_earlier_one_and_leaves_other_files(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "rf")
    for _ in range(2):
        assert report.main([str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0
        (tmp_path / "out" / "notes.txt").write_text("mine\n")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine\n"


def test_a_report_writes_through_no_link(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "rf")
    assert report.main([str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0
    (tmp_path / "out" / "results.csv").unlink()
    (tmp_path / "out" / "results.csv").symlink_to(run / "results.csv")
    before = contents(run)
    assert report.main([str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0
    assert contents(run) == before
