"""Two sweeps, or two parts of one, compared where they share runs and settings."""

import csv
from pathlib import Path

import pytest
import yaml
from made_up_runs import PIXELS, write_run

from analysis.compare import main
from analysis.join import main as join


def changed(folder: Path, factor: float) -> None:
    """Every FID of a run times a factor."""
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "fid": factor * float(row["fid"])} for row in rows)


@pytest.fixture
def sweeps(tmp_path: Path) -> tuple[Path, Path]:
    """b has its FID 10 % higher, a variant more, and a seed less."""
    for name in ("rf", "v/cos", "edm/rf"):
        for seed in (0, 1, 2):
            write_run(tmp_path / "a", name, seed=seed)
            if seed < 2:
                changed(write_run(tmp_path / "b", name, seed=seed), 1.1)
    write_run(tmp_path / "b", "eps/linear")
    return tmp_path / "a", tmp_path / "b"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_what_both_have_is_compared_pair_by_pair(sweeps, tmp_path: Path, capsys) -> None:
    assert main([*map(str, sweeps), "-o", str(tmp_path / "out.csv")]) == 0
    rows = [row for row in rows_of(tmp_path / "out.csv") if row["metric"] == "fid"]
    assert [row["variant"] for row in rows] == ["edm/rf", "rf", "v/cos", "all"]
    assert {row["n_seeds"] for row in rows} == {"2"}
    assert {row["n_settings"] for row in rows} == {"12"}
    for row in rows:
        assert float(row["difference"]) == pytest.approx(0.1 * float(row["a"]))
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
    said = capsys.readouterr().out
    assert "means over 12 shared settings and 2 seeds" in said
    assert "worse" in said


def test_a_sweep_with_itself_differs_in_nothing_and_tables_compare_as_folders(sweeps, tmp_path: Path, capsys) -> None:
    table = tmp_path / "rows.csv"
    assert join([str(table), str(sweeps[0])]) == 0
    assert main([str(sweeps[0]), str(table), "-o", str(tmp_path / "out.csv")]) == 0
    for row in rows_of(tmp_path / "out.csv"):
        assert [float(row[name]) for name in ("difference", "low", "high")] == [0, 0, 0]


def test_what_is_constant_in_each_and_differs_between_them_is_told(tmp_path: Path, capsys) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "a", "rf", seed=seed)
        write_run(tmp_path / "b", "rf", seed=seed, lr=1e-2, autoencoder=PIXELS)
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    said = capsys.readouterr().out
    assert "optimizer.lr=0.01 instead of 0.001" in said
    assert "representation=pixels instead of pca-f4-c16" in said


def test_two_parts_of_one_sweep(tmp_path: Path, capsys) -> None:
    for name in ("rf", "v/cos"):
        for seed in (0, 1):
            for lr in (1e-3, 1e-2):
                folder = write_run(tmp_path / "a", name, seed=seed, lr=lr)
                if lr == 1e-2:
                    changed(folder, 2.0)
    out = tmp_path / "out.csv"
    assert main([str(tmp_path / "a"), "--a", "optimizer.lr=1e-3", "--b", "optimizer.lr=0.01", "-o", str(out)]) == 0
    rows = [row for row in rows_of(out) if row["metric"] == "fid"]
    assert [row["variant"] for row in rows] == ["rf", "v/cos", "all"]
    assert all(float(row["b"]) == pytest.approx(2 * float(row["a"])) for row in rows)
    assert main([str(tmp_path / "a"), "--a", "variant=rf", "--b", "variant=v/cos", "-o", str(out)]) == 0
    assert {row["variant"] for row in rows_of(out)} == {"optimizer.lr=0.001", "optimizer.lr=0.01", "all"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["A"], "compared with itself: say which part is A and which B, with --a and --b"),
        (["A", "C"], "no row of A and B is of the same dataset: shapes and other"),
        (["A", "B", "--a", "optimizer.lr=3"], "--a optimizer.lr=3: no row has it; optimizer.lr is 0.001"),
        (["A", "B", "--a", "lr=3"], "--a lr=3: no row has such a column; allowed are variant, seed, weights, "),
        (["A", "B", "-o", "x.docx"], "-o x.docx: allowed are names that end in .csv, .md, .tex, .txt"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(words: list[str], told: str, tmp_path: Path, capsys) -> None:
    for name in ("rf", "v/cos"):
        write_run(tmp_path / "A", name, seed=0)
        write_run(tmp_path / "A", name, seed=1)
        write_run(tmp_path / "B", name)
        write_run(tmp_path / "C", name, dataset="other")
    assert main([str(tmp_path / word) if word in "ABC" else word for word in words]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""
    assert said.err.count("\n") == 1


def test_other_protocols_never_compare(tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "a", "rf")
    folder = write_run(tmp_path / "b", "rf")
    (folder / "results.csv").write_text((folder / "results.csv").read_text().replace("a1b2c3d4-shapes", "ffff"))
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "of the same protocol: a1b2c3d4-shapes and ffff" in capsys.readouterr().err


def test_protocols_that_differ_in_the_autoencoder_alone_compare(tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "a", "rf")
    folder = write_run(tmp_path / "b", "rf", autoencoder=PIXELS)
    for name in ("results.csv", "extractor.json"):
        (folder / name).write_text((folder / name).read_text().replace("a1b2c3d4", "ffff"))
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "representation=pixels instead of pca-f4-c16" in capsys.readouterr().out


def test_data_sets_have_a_line_each(tmp_path: Path) -> None:
    for dataset in ("shapes", "photos"):
        for place in ("a", "b"):
            write_run(tmp_path / place, "rf", dataset=dataset)
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "out.csv")]) == 0
    rows = rows_of(tmp_path / "out.csv")
    assert {row["variant"] for row in rows} == {"rf, dataset=photos", "rf, dataset=shapes", "all"}
    assert {row["n_settings"] for row in rows} == {"12"}


def test_a_key_that_differs_within_one_is_part_of_the_pair(tmp_path: Path, capsys) -> None:
    for depth in (2, 4):
        for place in ("a", "b"):
            folder = write_run(tmp_path / place / f"d{depth}", "rf")
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["backbone"]["depth"] = depth
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            rows = (folder / "results.csv").read_text().replace("mmdit-d4", f"mmdit-d{depth}")
            (folder / "results.csv").write_text(rows)
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(tmp_path / "out.csv")]) == 0
    lines = {row["variant"] for row in rows_of(tmp_path / "out.csv")}
    assert lines == {"rf, backbone=mmdit-d2-w128", "rf, backbone=mmdit-d4-w128", "all"}
