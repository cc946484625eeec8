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
    assert lines.pop().startswith("one seed: no intervals")
    assert len(lines) == len(TABLE_2)
    assert {line.split()[-1] for line in lines} == {"1"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("variant,clip\nrf,0.2\n", "no row of a trained variant has finite fid and clip; they have clip"),
        ("variant,fid,clip\nrf,low,0.2\n", "line 2: fid is 'low', not a number"),
    ],
)
def test_a_table_without_the_objectives_is_told(text: str, told: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "scores.csv").write_text(text)
    assert main([str(tmp_path / "scores.csv")]) == 2
    assert told in capsys.readouterr().err


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
    assert "rf/mode(1.75): failed (ValueError: loss is nan at step 120), 0 of 12 settings" in out


def test_several_seeds_add_columns_and_keep_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scores.csv"
    lines = [
        f"{v},{seed},{steps},{10 * (i + 1) * (1 + 0.01 * seed)},{0.3 - 0.01 * i + 0.001 * seed}\n"
        for i, v in enumerate("abc") for seed in (0, 1) for steps in (5, 50)
    ]  # fmt: skip
    path.write_text("variant,seed,steps,fid,clip\n" + "".join(lines) + "d,0,5,1,0.5\n")
    assert main([str(path), "--csv", "--scores", str(tmp_path / "by_setting.csv")]) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert tuple(rows[0])[: len(RANK_COLUMNS)] == RANK_COLUMNS
    assert [row["place"] for row in rows] == ["1", "2", "3", ""]
    assert (rows[1]["fid"], rows[1]["n_seeds"], rows[1]["rank_all_low"]) == ("20.1", "2", "2")
    assert float(rows[1]["fid_se"]) == pytest.approx(0.1)
    # the better of all, but with one of the seeds only
    assert "d: 0 of 2 settings, complete in 0 of 2 seeds" in captured.err
    with (tmp_path / "by_setting.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert [(s["steps"], s["variant"], s["front"], s["n_seeds"]) for s in scores] == [
        *(("5", v, str(i + 1), "2") for i, v in enumerate("abc")), ("5", "d", "", "1"),
        *(("50", v, str(i + 1), "2") for i, v in enumerate("abc")),
    ]  # fmt: skip


def test_ties_are_marked_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("variant,seed,fid,clip\na,0,10,0.2\na,1,11,0.1\nb,0,12,0.1\nb,1,10,0.3\nc,0,11,0.2\nc,1,12,0.1\n")
    assert main([str(path)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert {line.split()[head.split().index("place") - 3] for line in lines[:3]} == {"1="}


def test_variants_and_settings_are_included_by_pattern(table_2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(table_2), "--csv", "--include-variant", "rf/*", "--include-variant", "v/cos"]) == 0
    names = {row["variant"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert names == {name for name in TABLE_2 if name.startswith("rf/") or name == "v/cos"}


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
