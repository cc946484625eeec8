import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest
from test_fronts import TABLE_2, brute_force

from analysis.rank import RANK_COLUMNS, main


@pytest.fixture
def table_2(tmp_path: Path) -> Path:
    path = tmp_path / "table2.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["variant", "dataset", "steps", "clip", "fid"])
        for name, (clip_a, fid_a, clip_b, fid_b) in TABLE_2.items():
            writer.writerow([name, "imagenet", 25, clip_a, fid_a])
            writer.writerow([name, "cc12m", 25, clip_b, fid_b])
    return path


def test_the_papers_table_2_as_csv(table_2: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(table_2), "--csv", "-o", str(tmp_path / "kept.csv")]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "kept.csv").read_text() == out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert tuple(rows[0]) == RANK_COLUMNS
    columns = list(zip(*TABLE_2.values(), strict=True))
    expected = [brute_force(list(columns[i + 1]), list(columns[i])) for i in (0, 2)]
    mean = dict(zip(TABLE_2, ((a + b) / 2 for a, b in zip(*expected, strict=True)), strict=True))
    assert {row["variant"]: float(row["rank_all"]) for row in rows} == mean
    assert {row["n_settings"] for row in rows} == {"2"}
    assert {row["rank_5_steps"] + row["rank_50_steps"] + row["rank_50_all"] for row in rows} == {""}
    assert [float(row["rank_all"]) for row in rows] == sorted(mean.values())


def test_the_table_for_people_and_include(table_2: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(table_2), "--include-dataset", "cc12m", "-o", str(tmp_path / "kept.txt")]) == 0
    out = capsys.readouterr().out
    assert out == (tmp_path / "kept.txt").read_text()
    head, *lines = out.splitlines()
    assert head.split() == list(RANK_COLUMNS)
    assert len(lines) == len(TABLE_2)
    assert {line.split()[-1] for line in lines} == {"1"}


@pytest.mark.parametrize("argument", ["no-such-file.csv", "empty-folder", "--include-dataset"])
def test_mistakes_are_one_line_and_a_code(
    argument: str, table_2: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty-folder").mkdir()
    given = [str(table_2), argument, "coco"] if argument.startswith("--") else [str(tmp_path / argument)]
    assert main(given) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_nothing_complete_says_how_to_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("variant,fid,clip,protocol\na,1,0.2,p\nb,1,0.2,q\n")
    assert main([str(path), "--csv"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1:] == ["a,,,,,1", "b,,,,,1"]
    assert "--include-protocol: p, q" in captured.err


def test_a_sweep_folder_ranks_as_its_rows(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "diverged, last front + 1: edm(1.20,1.80)" in out
    assert "not ranked (2):" in out
    assert "rf/mode(1.75): failed, 0 of 12 settings" in out


def test_analysis_imports_no_torch(sweep: Path, tmp_path: Path) -> None:
    code = f"""
import sys
import analysis.report, analysis.rank
assert analysis.rank.main([{str(sweep)!r}]) == 0
assert "torch" not in sys.modules
assert analysis.report.main([{str(sweep)!r}, "-o", {str(tmp_path / "out")!r}]) == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_ranking_needs_no_charting_or_data_frames(table_2: Path) -> None:
    code = f"""
import sys
from analysis.rank import main
assert main([{str(table_2)!r}]) == 0
assert not {{"torch", "pandas", "altair", "scipy"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
