import csv
import json
import re
from pathlib import Path

import altair as alt
import pytest
import vl_convert
from made_up_runs import NAMES, write_run
from scipy.stats import spearmanr

from analysis.canvas import scaled
from analysis.charts import Charts
from analysis.collect import collect, results
from analysis.families import colours
from analysis.markdown import markdown
from analysis.page import page
from analysis.paper import PAPER_RANKS
from analysis.ranking import rank
from analysis.study import Study, flatten, say, studies
from flowzoo.formulation import names


def of(folder: Path) -> list[Study]:
    runs = collect([folder]).runs
    return studies(runs, results(runs))


def test_data_sets_and_protocols_are_never_mixed(tmp_path: Path) -> None:
    for dataset in ("shapes", "cifar10"):
        for name in NAMES[:4]:
            write_run(tmp_path, name, dataset=dataset)
    write_run(tmp_path, "edm(1.20,1.80)", state="diverged", dataset="shapes")
    cifar, shapes = of(tmp_path)
    assert (cifar.key[0], shapes.key[0]) == ("cifar10", "shapes")
    assert {row.record["dataset"] for row in cifar.results.rows} == {"cifar10"}
    assert (len(cifar.ranking.ranked), len(shapes.ranking.ranked)) == (4, 5)
    assert len(shapes.ranking.settings) == 12


def test_a_sweep_that_has_not_begun_is_one_study_without_ranks(tmp_path: Path) -> None:
    for name in NAMES[:3]:
        write_run(tmp_path, name, state="queued")
    (study,) = of(tmp_path)
    assert study.ranking.ranked == []
    assert {entry.reason for entry in study.ranking.unranked} == {"no scores yet"}
    assert study.baseline is None


def test_the_order_is_compared_with_the_papers_over_the_shared_variants(sweep: Path) -> None:
    (study,) = of(sweep)
    shared = [(e.rank_all, PAPER_RANKS[e.variant].all) for e in study.ranking.ranked if e.variant in PAPER_RANKS]
    assert study.agreement is not None
    n, rho = study.agreement.n, study.agreement.spearman.value
    assert n == len(shared)
    assert rho == pytest.approx(spearmanr(*zip(*shared, strict=True)).statistic)


def test_few_samples_and_single_seeds_are_warned_of(sweep: Path) -> None:
    (study,) = of(sweep)
    assert "256 samples of 64-dimensional" in study.warnings[0]
    assert "One seed" in study.warnings[1]


def without_fid(folder: Path) -> None:
    """As a run leaves them that has too few images for FID."""
    with (folder / "results.csv").open(newline="") as file:
        rows = [row | {"fid": ""} for row in csv.DictReader(file)]
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    told = json.loads((folder / "extractor.json").read_text())
    for about in told.values():
        about |= {"no_fid": "FID is not given: 8 images", "quality": {"data": "photographs"}}
    (folder / "extractor.json").write_text(json.dumps(told))


def test_without_fid_there_are_clip_scores_and_the_reason(tmp_path: Path) -> None:
    for name in NAMES[:3]:
        without_fid(write_run(tmp_path, name, weights=["ema"]))
    (study,) = of(tmp_path)
    assert study.ranking.ranked == []
    assert {entry.reason for entry in study.ranking.unranked} == {"no FID"}
    assert study.partial_scores is not None
    assert study.partial_scores.header[1] == "CLIP score, steps 5, guidance 5"
    assert sorted(row[0] for row in study.partial_scores.rows) == sorted(NAMES[:3])
    best = [float(row[1]) for row in study.partial_scores.rows]
    assert best == sorted(best, reverse=True)
    for text in (markdown([study], "title"), page([study], "title")):
        assert "FID is not given: 8 images" in text
        assert "trained on photographs and has not seen images like shapes" in text
        assert study.partial_scores.rows[0][1] in text
    with pytest.raises(ValueError, match=r"finite fid and clip; they have clip: the report"):
        rank(study.results)


def test_deviations_say_what_equals_the_paper(sweep: Path) -> None:
    (study,) = of(sweep)
    here = {row[0]: row[2] for row in study.deviations.rows}
    assert here["EMA every, decay"] == "as in the paper"
    assert here["EMA form"] == "bias-corrected"
    assert here["Batch size"] == "64"
    assert here["Autoencoder"].startswith("BlockPCA (channels 16, factor 4")
    assert here["Text encoders"] == "not recorded"


def test_every_trained_variant_stands_beside_the_untrained_network(sweep: Path) -> None:
    (study,) = of(sweep)
    assert study.baseline is not None
    assert len(study.baseline.rows) == 6
    for row in study.baseline.rows:
        assert float(row[1]) > float(row[3]) >= float(row[2])


def test_the_papers_ranks_belong_to_names_of_the_61() -> None:
    for name in PAPER_RANKS:
        assert name in names.TABLE
    assert len(PAPER_RANKS) == 16


def test_config_in_words() -> None:
    assert say({"_target_": "a.b.Shapes", "size": 3, "rate": 1e-4}) == "Shapes (size 3, rate 0.0001)"
    assert flatten({"a": {"b": 1, "c": [1, 2]}}) == {"a.b": "1", "a.c": "1, 2"}


def test_scores_are_drawn_against_steps_where_guidance_changes_with_them(tmp_path: Path) -> None:
    for name in NAMES[:3]:
        write_run(tmp_path, name, settings=[(5, 5.0), (25, 2.5), (50, 1.0)], weights=("ema",))
    (study,) = of(tmp_path)
    found = Charts(study, colours(NAMES)).against_steps(study.objectives[0])
    assert found is not None
    assert found[1] == ["the only setting, guidance by number of steps"]
    steps = (
        {value["steps"] for data in found[0]["datasets"].values() for value in data}
        if "datasets" in found[0]
        else {value["steps"] for value in found[0]["data"]["values"]}
    )
    assert steps == {5.0, 25.0, 50.0}


def test_one_number_of_steps_makes_no_curve(tmp_path: Path) -> None:
    write_run(tmp_path, "rf", settings=[(50, 1.0), (50, 5.0)])
    (study,) = of(tmp_path)
    assert Charts(study, colours(["rf"])).against_steps(study.objectives[0]) is None


@pytest.mark.parametrize("scores", [[0.25, 0.2501], [12.341, 12.342], [1, 100], [0.001, 0.9], [-0.3, 0.2]])
def test_ticks_differ_however_close_the_scores_are(scores: list[float]) -> None:
    chart = alt.Chart(alt.Data(values=[{"y": score} for score in scores])).mark_point()
    drawn = vl_convert.vegalite_to_svg(chart.encode(y=alt.Y("y:Q", title=None, **scaled(scores))).to_dict())
    ticks = [text for text in re.findall(r"<text[^>]*>([^<]+)</text>", drawn) if text.strip()]
    assert len(ticks) > 2
    assert len(set(ticks)) == len(ticks)
