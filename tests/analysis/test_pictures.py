"""Charts as files."""

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from made_up_runs import write_run
from PIL import Image

from analysis.pictures import APART, check_charts, spread, tidied
from analysis.report import main


def test_names_keep_their_order_and_distance_with_the_least_moves():
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = list(rng.uniform(0, 300, rng.integers(1, 12)))
        moved = spread(places, APART, 300)
        order = np.argsort(places)
        assert np.all(np.diff(np.array(moved)[order]) >= APART - 1e-9)
        assert min(moved) >= 0
        assert max(moved) <= 300
        if len(places) == 1 or np.min(np.diff(np.sort(places))) >= APART:
            np.testing.assert_allclose(moved, places)
    assert spread([100, 100], 10, 300) == [95, 105]
    assert spread([299, 300], 10, 300) == [290, 300]


def test_names_of_points_move_or_go():
    texts = "".join(
        f'<text font-size="11px" text-anchor="start" transform="translate(10,{y})">a name</text>'
        for y in (100, 101, 102, 103, 104, 105, 106)
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><g class="mark-text role-mark names_marks">{texts}</g></svg>'
    left = ElementTree.fromstring(tidied(svg, 300)).iter("{http://www.w3.org/2000/svg}text")
    heights = sorted(float(text.get("transform", "").split(",")[1].rstrip(")")) for text in left)
    assert 3 <= len(heights) < 7
    assert np.diff(heights).min() > 11


@pytest.fixture(scope="module")
def charts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("charts")
    for name in ("rf", "v/cos"):
        for lr in (1e-3, 1e-2):
            write_run(folder / "rates", name, lr=lr, settings=[(50, 2.5)], weights=("ema",))
    assert main([str(folder / "rates"), "-o", str(folder / "out"), "--charts", str(folder / "charts")]) == 0
    return folder / "charts"


def test_every_chart_is_there_in_three_forms_and_in_the_index(charts: Path) -> None:
    with (charts / "charts.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {row["file"] for row in rows}
    assert {f"{name}{suffix}" for name in names for suffix in (".svg", ".png", ".pdf")} | {"charts.csv"} == {
        path.name for path in charts.iterdir()
    }
    assert {"swept-optimizer.lr-average-rank", "swept-optimizer.lr-fid", "s0-scatter-0"} <= names
    svg = (charts / "swept-optimizer.lr-fid.svg").read_text()
    ElementTree.fromstring(svg)
    assert "currentColor" not in svg
    assert 'font-family="inherit"' not in svg
    assert "v/cos" in svg
    picture = Image.open(charts / "swept-optimizer.lr-fid.png")
    assert picture.size[0] > 1000
    assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)
    assert (charts / "swept-optimizer.lr-fid.pdf").read_bytes().startswith(b"%PDF")


def test_a_later_command_replaces_its_own_charts_and_nothing_else(charts: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.svg").write_text("<svg/>")
    runs = [str(charts.parent / "rates"), "-o", str(tmp_path / "out")]
    assert main([*runs, "--charts", str(tmp_path)]) == 2
    assert "this folder holds something else; allowed is a new or an empty one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    check_charts("--charts", charts)
    before = {path.name for path in charts.iterdir()}
    assert main([*runs, "--charts", str(charts), "--include-variant", "rf"]) == 0
    after = {path.name for path in charts.iterdir()}
    assert after < before
    rows = csv.DictReader(io.StringIO((charts / "charts.csv").read_text()))
    assert {row["file"] for row in rows} == {Path(name).stem for name in after - {"charts.csv"}}
