"""One table of raw rows from the runs of several machines."""

import csv
import gzip
import json
import re
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import yaml
from made_up_runs import PCA, PIXELS, write_run

from analysis import join, rank, report
from flowzoo.runs import table

KL = {"_target_": "flowzoo.autoencoders.kl.KLAutoencoder", "weights": "kl.safetensors", "gain": 1.0}


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """What three machines have trained: other rates, representations and seeds; one run has diverged."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for name in ("rf", "v/cos", "edm/rf"):
        write_run(first, name)
        write_run(second, name, autoencoder=PIXELS)
        write_run(second, name, lr=5e-4)
        write_run(third, name, seed=1, autoencoder=KL)
    write_run(third, "edm(1.20,1.80)", state="diverged")
    write_run(third, "rf/mode(1.75)", state="failed")
    return [first, second, third]


def run_join(out: Path, *inputs: Path) -> int:
    return join.main([str(out), *map(str, inputs)])


def rows_of(path: Path) -> list[dict[str, str]]:
    return [row for _, row in table.read(path)[1]]


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_the_order_and_the_way_of_joining_change_no_byte(tmp_path: Path, places: list[Path], name: str) -> None:
    whole = tmp_path / f"whole_{name}"
    assert run_join(whole, *places) == 0
    for i, order in enumerate(permutations(places)):
        assert run_join(tmp_path / f"{i}_{name}", *order) == 0
        assert (tmp_path / f"{i}_{name}").read_bytes() == whole.read_bytes()
    step = tmp_path / f"step_{name}"  # one machine after another
    for place in reversed(places):
        assert run_join(step, place) == 0
    assert step.read_bytes() == whole.read_bytes()
    apart = [tmp_path / f"{place.name}_{name}" for place in places]
    for out, place in zip(apart, places, strict=True):
        assert run_join(out, place) == 0
    assert run_join(tmp_path / f"tables_{name}", *apart, places[0], whole) == 0  # what is there twice counts once
    assert (tmp_path / f"tables_{name}").read_bytes() == whole.read_bytes()


def test_a_row_says_all_that_its_run_says(tmp_path: Path, places: list[Path]) -> None:
    assert run_join(tmp_path / "rows.csv", *places) == 0
    rows = rows_of(tmp_path / "rows.csv")
    assert len(rows) == 12 * 18 + 1
    of_pixels = [row for row in rows if row["representation"] == "pixels"]
    assert {(row["autoencoder._target_"], row["optimizer.lr"]) for row in of_pixels} == {("Pixels", "0.001")}
    assert {row["optimizer.lr"] for row in rows} == {"0.001", "0.0005"}
    assert {row["representation"] for row in rows} == {"pixels", "pca-f4-c16", "kl-f4-c16"}
    assert {(row["code_version"], row["gpu"]) for row in rows} == {("0.1.0+abc1234", "NVIDIA H100 80GB HBM3")}
    assert rows[-1]["protocol.identity.name"] == "clip_shapes"
    (late,) = (row for row in rows if row["status"] == "diverged")
    assert (late["variant"], late["step"], late["fid"]) == ("edm(1.20,1.80)", "120", "")
    header = list(rows[0])
    swept = header.index("optimizer.lr")
    assert swept < header.index("trainer.batch_size")  # what differs comes before what does not


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_ranks_of_a_table_are_those_of_its_folders(tmp_path: Path, places: list[Path], name: str, capsys) -> None:
    shutil.rmtree(next(places[2].glob("rf_mode*")))  # it has no rows
    assert run_join(tmp_path / name, *places) == 0
    runs = tmp_path / "runs"
    runs.mkdir()
    for place in places:
        place.rename(runs / place.name)
    asked = (
        [],
        ["--include-training", "*=0.001"],
        ["--include-representation", "pixels"],
        ["--include-seed", "0", "--include-representation", "pca*", "--include-training", "*=0.001"],
    )
    capsys.readouterr()
    for words in asked:
        told = []
        for given in (runs, tmp_path / name):
            scores = tmp_path / "scores.csv"
            assert rank.main([str(given), "--csv", "--scores", str(scores), "--together", "sweep", *words]) == 0
            told.append((capsys.readouterr().out, scores.read_bytes()))
        assert told[0] == told[1]
    written = []
    for given in (runs, tmp_path / name):
        assert report.main([str(given), "-o", str(tmp_path / "out"), "--together", "sweep"]) == 0
        written.append([(tmp_path / "out" / name).read_bytes() for name in ("ranking.csv", "scores.csv")])
    assert written[0] == written[1]


def changed(folder: Path, file: str, change: Callable[[dict], object]) -> None:
    """A run's folder with another content of a JSON or YAML file."""
    path = folder / file
    read, written = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    change(content := read(path.read_text()))
    path.write_text(written(content))


def with_cell(folder: Path, column: str, value: str) -> None:
    """A run's folder whose first row has another cell."""
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = value
    with (folder / "results.csv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def other_rows(folder: Path) -> None:
    with_cell(folder, "fid", "1.5")


def other_protocol(folder: Path) -> None:
    changed(folder, "config.yaml", lambda config: config["evaluation"].update(samples=512))
    text = (folder / "results.csv").read_text()
    (folder / "results.csv").write_text(text.replace("a1b2c3d4", "d4c3b2a1"))


def other_images(folder: Path) -> None:
    text = (folder / "results.csv").read_text()
    (folder / "results.csv").write_text(text.replace("0f1e2d3c", "c3d2e1f0"))


def other_latents(folder: Path) -> None:
    changed(folder, "data.json", lambda about: about.update(statistics="0badcafe"))


def older_format(folder: Path) -> None:
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (folder / "results.csv").open("w") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "data"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("spoiled", "as_another", "told"),
    [
        (other_rows, False, r"two rows for weights=ema, .*steps=50, .*with fid \d.* and 1\.5 \("),
        (other_protocol, True, r"protocol of shapes pca-f4-c16 is .*a1b2c3d4-shapes.*: allowed are the same protocol"),
        (other_images, True, r"data of shapes pca-f4-c16 is .*: allowed are the same images"),
        (other_latents, True, r"latents of shapes pca-f4-c16 is .*: allowed are the same latents"),
        (older_format, False, r"its rows lack the column data, .*; allowed are rows with run, variant"),
    ],
)
def test_what_differs_where_it_must_not_is_refused_in_a_line(tmp_path, capsys, spoiled, as_another, told) -> None:
    one = write_run(tmp_path / "one", "rf")
    other = write_run(tmp_path / "other", "v/cos" if as_another else "rf")
    assert run_join(tmp_path / "rows.csv", tmp_path / "one") == 0
    spoiled(other)
    before = (tmp_path / "rows.csv").read_bytes()
    capsys.readouterr()
    for out in ("rows.csv", "new.csv"):
        assert run_join(tmp_path / out, tmp_path / "other", one) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert re.search(told, message)
    assert (tmp_path / "rows.csv").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"one", "other", "rows.csv"}


def test_other_images_and_latents_on_purpose_are_joined(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "rf")
    smaller = write_run(tmp_path / "runs", "v/cos")
    changed(smaller, "config.yaml", lambda config: config["data"]["source"].update(image_size=8))
    other_images(smaller)
    other = write_run(tmp_path / "runs", "edm/rf", autoencoder={**PCA, "channels": 6})
    other_latents(other)
    assert run_join(tmp_path / "rows.csv", tmp_path / "runs") == 0


def test_places_that_no_table_can_have_are_refused(tmp_path: Path, capsys) -> None:
    run = write_run(tmp_path / "runs", "rf")
    (tmp_path / "other.csv").write_text("variant,fid,clip\nrf,1,2\n")
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(b"run,variant\n" * 100)[:20])
    given = {
        "rows.parquet": "allowed are names that end in .csv or .csv.gz",
        "runs": "this is a folder",
        f"runs/{run.name}/rows.csv": "this is in the run folder",
        "nowhere/rows.csv": "is no folder",
        "other.csv": "lacks the column run",
        "torn.csv.gz": "is not a CSV file",
    }
    for out, told in given.items():
        assert run_join(tmp_path / out, tmp_path / "runs") == 2
        assert told in capsys.readouterr().err
    assert run_join(tmp_path / "rows.csv", tmp_path / "absent") == 2
    assert "absent does not exist" in capsys.readouterr().err


def test_a_run_that_cannot_be_read_is_told_and_left_out(tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "runs", "rf")
    torn = write_run(tmp_path / "runs", "v/cos")
    text = (torn / "results.csv").read_text()
    (torn / "results.csv").write_text(text[: len(text) // 2])
    assert run_join(tmp_path / "rows.csv", tmp_path / "runs") == 1
    assert f"cannot read {torn / 'results.csv'}: it is cut short" in capsys.readouterr().err
    assert {row["variant"] for row in rows_of(tmp_path / "rows.csv")} == {"rf"}
