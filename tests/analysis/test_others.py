"""Scores beyond the objectives, beside the pictures."""

import json
from pathlib import Path
from statistics import fmean

from made_up_runs import write_run

from analysis.collect import collect, results
from analysis.markdown import markdown
from analysis.others import other_scores, pictured
from analysis.page import page
from analysis.study import Study, studies


def study(folder: Path) -> Study:
    runs = collect([folder]).runs
    (made,) = studies(runs, results(runs))
    return made


def judged(folder: Path, words: str) -> None:
    """As a run says of a metric how good its judge is."""
    path = folder / "extractor.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({key: {**told, "judges": {"attributes": words}} for key, told in known.items()}))


def test_means_over_seeds_in_the_setting_of_the_pictures(tmp_path: Path) -> None:
    for name in ("rf", "v/cos"):
        for seed in (0, 1):
            write_run(tmp_path, name, seed=seed, metrics={"right_forms": "max"})
    for path in tmp_path.iterdir():
        judged(path, "forms: 99.0% on <b>shapes</b>")
    made = study(tmp_path)
    setting = pictured(made)
    told = {name: made.cell(setting, name) for name in ("weights", "steps", "guidance")}
    assert told == {"weights": "ema", "steps": "50", "guidance": "5"}  # of 50 and 25 steps, guidance 1 to 5
    found = other_scores(made)
    assert found is not None
    assert found.table.header == ("variant", "right_forms")
    assert found.judges == ["attributes, forms: 99.0% on <b>shapes</b>"]
    for variant, shown in found.table.rows:
        own = [r.scores["right_forms"] for r in made.results.rows if (r.variant, r.setting) == (variant, setting)]
        assert len(own) == 2
        assert abs(float(shown) - fmean(own)) < 6e-4
    html = page([made], "title")
    assert "<h3>Other scores</h3>" in html
    assert "&lt;b&gt;shapes" in html
    assert "### Other scores" in markdown([made], "title")


def test_without_other_scores_nothing_is_said(tmp_path: Path) -> None:
    write_run(tmp_path, "rf")
    made = study(tmp_path)
    assert other_scores(made) is None
    assert "Other scores" not in markdown([made], "title")
