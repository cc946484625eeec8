"""What a report says of several studies together."""

import random
from pathlib import Path

import pytest
from made_up_runs import NAMES, PCA, PIXELS, write_run

from analysis.collect import collect, results
from analysis.overview import Overview, extremes, said, sureness
from analysis.study import Study, studies

SETTINGS = [(50, 2.5), (5, 5.0)]


def studies_of(folder: Path) -> list[Study]:
    runs = collect([folder]).runs
    return studies(runs, results(runs))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three seeds of the first five variants, one of the others; of pixels one seed; of another gain two variants."""
    for i, name in enumerate(NAMES):
        for seed in range(3 if i < 5 else 1):
            write_run(tmp_path, name, seed=seed, settings=SETTINGS, weights=("ema",))
        write_run(tmp_path, name, settings=SETTINGS, weights=("ema",), autoencoder=PIXELS)
    for name in NAMES[:2]:
        write_run(tmp_path, name, settings=SETTINGS, weights=("ema",), autoencoder={**PCA, "gain": 0.5})
    return tmp_path


def test_variants_of_one_seed_rank_by_it_with_the_noise_of_those_that_have_more(sweep: Path) -> None:
    whole, some, *_ = studies_of(sweep)
    assert (whole.part, some.part) == ("14 variants of seed 0", "5 variants of seeds 0, 1 and 2")
    assert {entry.variant for entry in whole.ranking.ranked} == set(NAMES)
    assert {entry.variant for entry in some.ranking.ranked} == set(NAMES[:5])
    for study in (whole, some):
        assert all(entry.rank_all_low is not None and entry.place for entry in study.ranking.ranked)
    assert not any("no intervals" in words for words in whole.warnings)


def test_rankings_of_most_variants_are_compared(sweep: Path) -> None:
    all_of = Overview(studies_of(sweep))
    assert [all_of.label(study) for study in all_of.compared] == ["pca-f4-c16", "pixels"]
    assert all(len(study.ranking.ranked) == len(NAMES) for study in all_of.compared)
    for study in all_of.compared:
        best, worst = extremes(study)
        assert [*best, *worst] == [*study.ranking.ranked[:3], *study.ranking.ranked[-3:]]
    assert sureness(all_of.compared[1]) == "One seed: no intervals."
    assert sureness(all_of.compared[0]).startswith("Of 14, ")


def test_every_rank_is_in_the_table(sweep: Path) -> None:
    all_of = Overview(studies_of(sweep))
    assert all_of.ranks.header == ["Variant", "pca-f4-c16", "pixels"]
    rows = {row[0]: row[1:] for row in all_of.ranks.rows}
    for at, study in enumerate(all_of.compared):
        assert {entry.variant: said(entry) for entry in study.ranking.ranked} == {v: row[at] for v, row in rows.items()}
    first, last = (all_of.ranks.rows[i][0] for i in (0, -1))
    mean = {v: sum(float(cell.split()[0]) for cell in row) for v, row in rows.items()}
    assert mean[first] < mean[last]


def test_orders_are_compared_with_the_paper_and_with_each_other(sweep: Path) -> None:
    all_of = Overview(studies_of(sweep))
    assert all_of.with_paper is not None
    assert [row[0] for row in all_of.with_paper.rows] == [
        *("pca-f4-c16, 14 variants of seed 0", "pca-f4-c16, 5 variants of seeds 0, 1 and 2", "pixels")
    ]
    assert all_of.with_each_other is not None
    (_, one, other), (_, again, two) = all_of.with_each_other.rows
    assert (one, two) == ("+1.00", "+1.00")
    assert other == again


def test_a_small_study_has_no_variant_at_both_ends(tmp_path: Path) -> None:
    for n in (1, 2, 4, 6, 7):
        write_run(tmp_path / str(n), NAMES[0])
        for name in NAMES[1:n]:
            write_run(tmp_path / str(n), name)
        (study,) = studies_of(tmp_path / str(n))
        best, worst = extremes(study)
        names = [entry.variant for entry in (*best, *worst)]
        assert len(names) == len(set(names)) == min(n, 6)


def test_what_has_diverged_says_so_and_not_how_sure(tmp_path: Path) -> None:
    rng = random.Random(0)
    for name in rng.sample(NAMES, 4):
        write_run(tmp_path, name)
    write_run(tmp_path, "edm(1.20,1.80)", state="diverged")
    (study,) = studies_of(tmp_path)
    assert said(study.ranking.ranked[-1]).endswith(" (diverged)")
