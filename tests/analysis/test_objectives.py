"""--objectives: what it asks for, what the runs' files say of directions, and one line for each mistake."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from made_up_runs import NAMES, write_run

from analysis import rank, report
from analysis.objectives import DEFAULT, Objective, chosen
from analysis.results import build
from flowzoo.runs.reading import RunFolder

ROWS = build([("row", {"variant": "rf", "fid": "1", "clip": "0.2", "geneval": "0.5", "note": "good", "steps": "5"})])


def told(folder: Path, metrics: object) -> RunFolder:
    folder.mkdir()
    (folder / "extractor.json").write_text(json.dumps({"p": {"metrics": metrics}, "q": {}, "r": None}))
    return RunFolder(folder)


def test_directions_are_typed_or_known(tmp_path: Path) -> None:
    assert chosen(None, ROWS) == DEFAULT
    assert chosen("fid, clip", ROWS) == DEFAULT
    assert chosen("clip:max,geneval:min", ROWS) == (Objective("clip", "max"), Objective("geneval", "min"))
    run = told(tmp_path / "run", {"fid": "min", "geneval": "max"})
    assert chosen("geneval,fid", ROWS, [run]) == (Objective("geneval", "max"), Objective("fid", "min"))


@pytest.mark.parametrize("metrics", [None, [], {"geneval": "up"}, {"geneval": ["max"]}, "geneval"])
def test_what_a_file_says_badly_it_does_not_say(metrics: object, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="which way geneval is better is not known; allowed: geneval:min or geneval:max"
    ):
        chosen("fid,geneval", ROWS, [told(tmp_path / "run", metrics)])


def test_runs_that_differ_in_a_direction_do_not_say_it(tmp_path: Path) -> None:
    runs = [told(tmp_path / way, {"geneval": way}) for way in ("min", "max")]
    with pytest.raises(ValueError, match="which way geneval is better is not known"):
        chosen("fid,geneval", ROWS, runs)


MISTAKES = {
    "kid,fid": "the rows have no metric 'kid'; allowed: fid, clip, geneval",
    "fid,": "the rows have no metric ''",
    "steps:min,fid": "the rows have no metric 'steps'",
    "fid:down,clip": "'down' is no direction of fid; allowed: min or max",
    "fid:,clip": "'' is no direction of fid",
    "fid": "one objective alone has no fronts; allowed: two or more of fid, clip, geneval",
    "fid,fid:max": "fid stands there twice; allowed: each metric once",
    "fid,geneval": "which way geneval is better is not known",
    "note:min,fid": "row: note is 'good', not a number",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(MISTAKES[text])):
        chosen(text, ROWS)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four variants with two seeds, whose rows have a third metric."""
    folder = tmp_path_factory.mktemp("sweep") / "runs"
    for name in NAMES[:4]:
        for seed in (0, 1):
            write_run(folder, name, seed=seed, settings=[(50, 1.0), (5, 5.0)], metrics={"geneval": "max"})
    return folder


def test_a_mistake_is_one_line_and_writes_nothing(sweep: Path, tmp_path: Path, capsys) -> None:
    for command in ([sweep], [sweep, "-o", tmp_path / "out"]):
        main = report.main if "-o" in command else rank.main
        assert main([*map(str, command), "--objectives", "fid,kid"]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert "allowed: fid, clip, geneval" in captured.err
        assert (captured.out, list(tmp_path.iterdir())) == ("", [])


def test_three_objectives_by_name_alone(sweep: Path, tmp_path: Path, capsys) -> None:
    scores = tmp_path / "scores.csv"
    assert rank.main([str(sweep), "--csv", "--objectives", "geneval,fid,clip", "--scores", str(scores)]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0])[-6:] == ["geneval", "geneval_se", "fid", "fid_se", "clip", "clip_se"]
    assert {"geneval", "geneval_se", "front"} < set(csv.DictReader(scores.open()).fieldnames or ())
    assert rank.main([str(sweep), "--csv", "--scores", str(scores)]) == 0  # over what it wrote before
    names = csv.DictReader(scores.open()).fieldnames or ()
    assert names[-8:] == ["front", "fid", "fid_se", "clip", "clip_se", "geneval", "geneval_se", "n_seeds"]


def test_the_report_of_three_objectives(sweep: Path, tmp_path: Path) -> None:
    assert report.main([str(sweep), "-o", str(tmp_path / "out"), "--objectives", "fid,clip,geneval"]) == 0
    page, text = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("html", "md"))
    for chart in ("scatter-0", "scatter-1", "steps-0", "steps-1", "steps-2", "attainment"):
        assert f'data-spec="s0-{chart}"' in page
    said = "on FID (down), CLIP score (up) and geneval (up)"
    assert said in page
    assert said in text
    assert "geneval untrained" in text
    assert "geneval is left out" in page


def test_two_other_objectives_name_no_fid(sweep: Path, tmp_path: Path) -> None:
    """Nothing but the names of columns speaks of FID, where it is not among the metrics."""
    shutil.copytree(sweep, tmp_path / "runs")
    for table in (tmp_path / "runs").rglob("results.csv"):
        lines = list(csv.DictReader(table.open()))
        names = [name for name in lines[0] if name != "fid"]
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(lines)
    assert report.main([str(tmp_path / "runs"), "-o", str(tmp_path / "out"), "--objectives", "clip,geneval"]) == 0
    assert "FID" not in (tmp_path / "out" / "report.md").read_text()
    assert report.main([str(tmp_path / "runs"), "-o", str(tmp_path / "out")]) == 0  # the default cannot rank these
    text = (tmp_path / "out" / "report.md").read_text()
    assert "No ranking: it needs FID and CLIP score in one row. The rows have no FID." in text
    assert "| Variant | CLIP score, " in text
