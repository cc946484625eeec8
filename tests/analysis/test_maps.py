"""Charts of families of laws over their parameters."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from altair.vegalite.v6.schema.core import Root
from made_up_runs import write_run

from analysis.collect import collect, results
from analysis.families import colours
from analysis.maps import FAMILIES, Maps
from analysis.study import studies
from flowzoo.formulation.names import TABLE

LOGNORM, EDM, MODE = FAMILIES


def test_all_laws_of_the_61_with_parameters_have_a_place() -> None:
    counted = [{name: at for name in TABLE if (at := family.place(name)) is not None} for family in FAMILIES]
    assert [len(members) for members in counted] == [30, 15, 9]
    assert counted[0]["rf/lognorm(-0.50,1.40)"] == (-0.5, 1.4)
    assert counted[1]["edm(-1.20,0.60)"] == (-1.2, 0.6)
    assert (counted[2]["rf"], counted[2]["rf/mode(-0.54)"]) == ((0.0,), (-0.54,))
    assert LOGNORM.place("rf/lognorm(0.00,1.00)/loss_x0") is None


@pytest.fixture
def maps(tmp_path: Path) -> Maps:
    names = ["rf/lognorm(0.00,1.00)", "rf/lognorm(0.50,0.60)", "rf/lognorm(0.00,0.60)", "rf", "rf/mode(1.29)"]
    names += ["rf/mode(-1.00)", "edm/rf"]
    for seed in range(2):
        for name in names:
            write_run(tmp_path, name, seed=seed, weights=("ema",), settings=[(50, 2.5), (5, 5.0)])
    runs = collect([tmp_path]).runs
    (study,) = studies(runs, results(runs))
    return Maps(study, colours(names))


def rows(spec: dict[str, Any] | None) -> list[dict[str, Any]]:
    assert spec is not None
    Root.validate(spec)
    return spec["datasets"]["rows"]


def test_tiles_say_ranks_and_means_over_settings(maps: Maps) -> None:
    assert maps.measures == ["average rank", "FID, mean over settings", "CLIP score, mean over settings"]
    found = rows(maps.of(LOGNORM, "a title"))
    assert len(found) == 3 * 3
    ranks = {entry.variant: entry.rank_all for entry in maps.study.ranking.ranked}
    for row in found:
        if row["at"] == 0:
            assert row["value"] == pytest.approx(ranks[row["variant"]], rel=1e-4)
            continue
        name = ("fid", "clip")[row["at"] - 1]
        own = [r.scores[name] for r in maps.study.results.rows if r.variant == row["variant"]]
        assert row["value"] == pytest.approx(fmean(own), rel=1e-4)
        assert row["low"] < row["value"] < row["high"]


def test_the_darkest_is_the_best_by_each_measure(maps: Maps) -> None:
    for family in (LOGNORM, MODE):
        for at, sign in enumerate((1, 1, -1)):
            own = [row for row in rows(maps.of(family)) if row["at"] == at]
            by_value = sorted(own, key=lambda row: sign * row["value"])
            assert [row["shade"] for row in by_value] == sorted(row["shade"] for row in own)
            assert by_value[0]["best"]
            assert all(0 <= row["shade"] <= 1 for row in own)


def test_too_few_of_a_family_make_no_map(maps: Maps) -> None:
    assert maps.of(EDM) is None
