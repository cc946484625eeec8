import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from test_fronts import brute_force, peeled

from analysis.objectives import DEFAULT, Objective
from analysis.ranking import Entry, Ranking, rank
from analysis.results import build

Rows = Sequence[dict[str, object]]


def ranking_of(rows: Rows, *objectives: Objective) -> Ranking:
    records = [(f"row {i}", {k: str(v) for k, v in row.items()}) for i, row in enumerate(rows)]
    return rank(build(records), objectives or DEFAULT)


def entries(rows: Rows, *objectives: Objective) -> dict[str, Entry]:
    return {entry.variant: entry for entry in ranking_of(rows, *objectives).entries}


def cloud(settings: Sequence[dict[str, object]], n: int = 8, draw: int = 0, **fixed: object) -> list[dict[str, object]]:
    rng = random.Random(draw)
    return [
        {"variant": f"v{i}", **fixed, **setting, "fid": rng.randrange(6), "clip": rng.randrange(6) / 10}
        for setting in settings
        for i in range(n)
    ]


SIX = [{"steps": s, "guidance": g} for s, g in [(50, 1.0), (50, 2.5), (50, 5.0), (5, 5.0), (10, 5.0), (25, 5.0)]]


def test_ranks_are_means_of_brute_force_fronts_over_the_settings_of_each_column() -> None:
    settings = [{"weights": w, **s} for w in ("ema", "raw") for s in SIX]
    rows = cloud(settings)
    fronts = {}
    for i in range(len(settings)):
        part = rows[8 * i : 8 * i + 8]
        fronts[i] = brute_force([r["fid"] for r in part], [r["clip"] for r in part])  # type: ignore[misc]
    found = entries(rows)
    for v in range(8):
        entry = found[f"v{v}"]
        for name, keep in {
            "rank_all": lambda s: True,
            "rank_5_steps": lambda s: s["steps"] == 5,
            "rank_50_steps": lambda s: s["steps"] == 50 and s["guidance"] == 5.0,
            "rank_50_all": lambda s: s["steps"] == 50,
        }.items():
            of = [fronts[i][v] for i, s in enumerate(settings) if keep(s)]
            assert getattr(entry, name) == pytest.approx(sum(of) / len(of))
        assert entry.n_settings == 12
        assert entry.rank_all_se is None


def test_columns_without_data_are_empty() -> None:
    assert entries(cloud([{"dataset": "a"}]))["v0"].rank_50_all is None
    entry = entries(cloud([{"steps": 50, "guidance": 2.5}, {"steps": 25, "guidance": 5}]))["v0"]
    assert (entry.rank_5_steps, entry.rank_50_steps) == (None, None)
    assert entry.rank_50_all is not None
    # without a guidance column there is one guidance
    assert entries(cloud([{"steps": 50}]))["v0"].rank_50_steps is not None


def test_protocols_never_compete() -> None:
    row = {"steps": 50}
    rows = [
        {**row, "variant": "a", "protocol": "p", "fid": 10, "clip": 0.2},
        {**row, "variant": "b", "protocol": "p", "fid": 20, "clip": 0.1},
        {**row, "variant": "a", "protocol": "q", "fid": 200, "clip": 0.02},
        {**row, "variant": "b", "protocol": "q", "fid": 100, "clip": 0.03},
    ]
    found = entries(rows)
    assert (found["a"].rank_all, found["b"].rank_all, found["a"].n_settings) == (1.5, 1.5, 2)
    # scored under different protocols only: nothing compares
    assert all(entry.rank_all is None for entry in entries([rows[0], rows[3]]).values())


def test_the_untrained_network_never_ranks() -> None:
    rows = cloud([{"weights": "ema"}])
    better = {"variant": "v0", "weights": "init", "fid": 0, "clip": 1.0}
    assert entries([*rows, better]) == entries(rows)
    with pytest.raises(ValueError, match="nothing to rank"):
        entries([better])


def test_a_diverged_variant_comes_after_the_last_front_of_every_setting() -> None:
    rows = cloud(SIX)
    plain = entries(rows)
    places = {
        "one row": [{"variant": "bad", "status": "diverged", "steps": 50, "guidance": 5, "fid": "nan", "clip": ""}],
        "every row": [{"variant": "bad", "status": "diverged", "fid": "", "clip": "", **s} for s in SIX],
        "no setting": [{"variant": "bad", "status": "diverged"}],
        "worthless scores": [{"variant": "bad", "status": "diverged", "fid": 0, "clip": 1, **s} for s in SIX],
    }
    for extra in places.values():
        found = entries([*rows, *extra])
        bad = found.pop("bad")
        assert found == plain
        assert bad.n_settings == 6
        last = [
            max(brute_force([r["fid"] for r in part], [r["clip"] for r in part]))  # type: ignore[misc]
            for part in (rows[8 * i : 8 * i + 8] for i in range(6))
        ]
        assert bad.rank_all == pytest.approx(sum(last) / 6 + 1)


def test_divergence_counts_in_its_own_data_set_only() -> None:
    rows = cloud([{"dataset": "a"}, {"dataset": "b"}])
    bad = entries([*rows, {"variant": "bad", "dataset": "a", "status": "diverged"}])["bad"]
    assert bad.rank_all is None
    assert (bad.n_settings, bad.reason) == (1, "diverged, 1 of 2 settings")


@pytest.mark.parametrize("status", ["failed", "stopped", "running", "queued", "preempted"])
def test_unfinished_variants_have_no_rank_and_change_no_other(status: str) -> None:
    rows = cloud(SIX)
    partial = [{"variant": "part", "status": status, "fid": 0, "clip": 1.0, **SIX[0]}]
    found = entries([*rows, *partial])
    part = found.pop("part")
    assert found == entries(rows)
    assert part.rank_all is None
    assert part.n_settings == 0
    assert status in part.reason


def test_a_missing_setting_means_no_rank_and_a_place_below() -> None:
    rows = cloud(SIX)
    found = entries([row for row in rows if not (row["variant"] == "v3" and row["steps"] == 5)])
    assert found["v3"].rank_all is None
    assert (found["v3"].n_settings, list(found)[-1]) == (5, "v3")
    not_finite = [row if row is not rows[3] else {**row, "fid": "nan"} for row in rows]
    assert entries(not_finite)["v3"].reason == "fid or clip not finite, 5 of 6 settings"


def test_a_variant_that_lacks_a_setting_changes_no_other_rank() -> None:
    cells = [("A", 5, 10, 0.2), ("B", 5, 11, 0.3), ("A", 50, 10, 0.2), ("B", 50, 9, 0.3), ("C", 5, 10.5, 0.4)]
    rows = [dict(zip(("variant", "steps", "fid", "clip"), row, strict=True)) for row in cells]
    found = entries(rows)
    c = found.pop("C")
    assert found == entries(rows[:4])
    # B is dominated at 5 steps by C alone, A at 50 steps by B
    assert (found["B"].rank_all, found["A"].rank_all) == (1.0, 1.5)
    assert (c.rank_all, c.n_settings, c.reason) == (None, 1, "1 of 2 settings")
    # a diverged variant comes after the last front of the complete ones
    late = entries([*rows, {"variant": "D", "status": "diverged"}])["D"]
    assert (late.rank_5_steps, late.rank_all) == (2.0, 2.5)


def test_a_diverged_variant_is_never_first() -> None:
    rows = [
        {"variant": "A", "steps": 5, "fid": 1, "clip": 0.2},
        {"variant": "B", "steps": 50, "fid": 1, "clip": 0.2},
        {"variant": "D", "status": "diverged"},
    ]
    assert entries(rows)["D"].rank_all == 2.0


def test_fronts_name_every_scored_variant() -> None:
    rows = [row for row in cloud(SIX, n=3) if not (row["variant"] == "v2" and row["steps"] == 5)]
    ranking = ranking_of(rows)
    for setting, front in ranking.fronts.items():
        assert front.keys() == {"v0", "v1"} | (set() if setting[0] == "5" else {"v2"})
        assert front.get("v2") is None
        assert set(front.values()) - {None} <= {1, 2}


def seeded(noise: float, seeds: int = 3, apart: float = 0.2, n: int = 6) -> list[dict[str, object]]:
    """Variants of which each is better than the next in both scores, by `apart` of the FID; runs differ by `noise`."""
    rng = random.Random(7)
    rows: list[dict[str, object]] = []
    for seed in range(seeds):
        common = rng.gauss(0, 0.3)  # what a seed does to all, far more than to each
        for i in range(n):
            own = rng.gauss(0, noise)
            rows += [
                {"variant": f"v{i}", "seed": seed, **setting, "fid": 20 * (1 + apart) ** i * (1 + common) * (1 + own),
                 "clip": 0.3 - 0.05 * apart * i + 0.1 * common - 0.05 * own}
                for setting in SIX
            ]  # fmt: skip
    return rows


def test_scores_are_averaged_over_seeds_before_they_are_sorted() -> None:
    rows = [row for s in range(3) for row in cloud(SIX, draw=s, seed=s)]
    means: list[dict[str, object]] = []
    for setting in SIX:
        for v in range(8):
            own = [r for r in rows if r["variant"] == f"v{v}" and setting.items() <= r.items()]
            mean = {name: fmean(float(str(r[name])) for r in own) for name in ("fid", "clip")}
            means.append({"variant": f"v{v}", **setting, **mean})
    together, alone = entries(rows), entries(means)
    for name, entry in together.items():
        assert entry.rank_all == alone[name].rank_all
        assert (entry.n_seeds, entry.n_settings) == (3, 6)
        assert entry.rank_all_low is not None
        assert entry.rank_all_high is not None
        assert entry.rank_all_low <= (entry.rank_all or 0.0) <= entry.rank_all_high


def test_scores_of_a_setting_are_mean_standard_error_and_n() -> None:
    rows = [{"variant": "a", "seed": s, "steps": 50, "fid": fid, "clip": 0.2} for s, fid in enumerate((1, 2, 6))]
    (score,) = ranking_of(rows).scores[("50",)].values()
    assert (score.mean["fid"], score.n, score.se["clip"]) == (3.0, 3, pytest.approx(0))
    assert score.se["fid"] == pytest.approx((14 / 2 / 3) ** 0.5)


FID, CLIP, GENEVAL = Objective("fid", "min"), Objective("clip", "max"), Objective("geneval", "max")


def with_geneval(rows: Rows, of: Callable[[dict[str, object]], float]) -> list[dict[str, object]]:
    return [{**row, "geneval": of(row)} for row in rows]


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_sign_of_an_objective_with_its_direction_changes_nothing(seeds: int) -> None:
    rows = with_geneval([row for s in range(seeds) for row in cloud(SIX, draw=s, seed=s)], lambda row: hash_of(row) % 5)
    plain = entries(rows, FID, CLIP, GENEVAL)
    for name in ("fid", "clip", "geneval"):
        flipped = [{**row, name: -float(str(row[name]))} for row in rows]
        objectives = [Objective(o.name, "min" if o.direction == "max" else "max") if o.name == name else o
                      for o in (FID, CLIP, GENEVAL)]  # fmt: skip
        found = entries(flipped, *objectives)
        assert {v: replace(e, mean=None) for v, e in found.items()} == {
            v: replace(e, mean=None) for v, e in plain.items()
        }


def hash_of(row: dict[str, object]) -> int:
    return random.Random(str(sorted(row.items()))).randrange(1000)


def test_the_order_of_objectives_changes_nothing() -> None:
    rows = with_geneval(cloud(SIX), hash_of)
    assert entries(rows, GENEVAL, FID, CLIP) == entries(rows, FID, CLIP, GENEVAL)


def test_three_objectives_are_sorted_as_by_brute_force() -> None:
    rows = with_geneval(cloud(SIX), lambda row: hash_of(row) % 6)
    found = entries(rows, FID, CLIP, GENEVAL)
    fronts = [
        peeled(
            [(float(str(r["fid"])), -float(str(r["clip"])), -float(str(r["geneval"]))) for r in rows[8 * i : 8 * i + 8]]
        )
        for i in range(6)
    ]
    for v in range(8):
        assert found[f"v{v}"].rank_all == pytest.approx(fmean(front[v] for front in fronts))


def test_a_constant_objective_changes_no_rank_and_other_metrics_none_at_all() -> None:
    rows = [row for s in range(2) for row in cloud(SIX, draw=s, seed=s)]
    plain = entries(rows)
    for objectives in ((FID, CLIP, GENEVAL), (FID, CLIP)):
        for v, entry in entries(with_geneval(rows, lambda _: 0.5), *objectives).items():
            assert replace(entry, mean=None) == replace(plain[v], mean=None)
            assert entry.mean is not None
            assert entry.mean.mean["geneval"] == 0.5


def test_a_metric_that_some_rows_lack_is_shown_where_it_is_whole() -> None:
    rows = [row for s in range(2) for row in cloud([{"steps": 5}], n=2, draw=s, seed=s)]
    partly = [{**row, "kid": "" if row["variant"] == "v0" and row["seed"] == 1 else 3.0} for row in rows]
    assert ranking_of(partly).metrics == ("fid", "clip", "kid")
    (scores,) = ranking_of(partly).scores.values()
    assert {variant: "kid" in score.mean for variant, score in scores.items()} == {"v0": False, "v1": True}
    assert entries(partly)["v0"].rank_all is not None


def test_what_a_seed_does_to_all_is_no_noise() -> None:
    found = entries(seeded(noise=0.01))
    assert [found[f"v{i}"].place for i in range(6)] == [1, 2, 3, 4, 5, 6]
    assert all(entry.rank_all_low == entry.rank_all == entry.rank_all_high for entry in found.values())


def test_gaps_inside_the_noise_are_ties() -> None:
    found = entries(seeded(noise=0.1, apart=0.001))
    assert {entry.place for entry in found.values()} == {1}
    assert all(len(entry.ties) == 5 for entry in found.values())
    # two groups: ties inside each, a clear gap between them
    rows = seeded(noise=0.1, apart=0.001)
    for row in rows:
        if row["variant"] in ("v4", "v5"):
            row["fid"], row["clip"] = 5 * float(str(row["fid"])), float(str(row["clip"])) - 0.2
    found = entries(rows)
    assert [found[f"v{i}"].place for i in range(6)] == [1, 1, 1, 1, 5, 5]
    assert (found["v4"].ties, len(found["v0"].ties)) == (("v5",), 3)


def test_the_same_rows_in_any_order_give_the_same_intervals() -> None:
    rows = seeded(noise=0.1, apart=0.05)
    assert entries(rows) == entries(rows[::-1])


def test_one_seed_has_no_intervals() -> None:
    for entry in entries(seeded(noise=0.1, seeds=1)).values():
        assert (entry.place, entry.rank_all_low, entry.rank_all_se) == (None, None, None)
        assert entry.mean is not None
        assert entry.mean.se == {}


def test_who_diverges_in_one_seed_comes_last_in_all() -> None:
    rows = [row for row in seeded(noise=0.01) if not (row["variant"] == "v0" and row["seed"] == 1)]
    found = entries([*rows, {"variant": "v0", "seed": 1, "status": "diverged"}])
    assert (found["v0"].rank_all, found["v0"].place, found["v0"].mean) == (6.0, 6, None)
    assert found["v1"].rank_all == 1.0


def test_a_variant_without_one_of_the_seeds_has_no_rank() -> None:
    rows = cloud(SIX, draw=0, seed=0) + cloud(SIX, n=7, draw=1, seed=1)
    entry = entries(rows)["v7"]
    assert entry.rank_all is None
    assert (entry.n_seeds, entry.n_settings) == (1, 0)
    assert "complete in 1 of 2 seeds" in entry.reason
