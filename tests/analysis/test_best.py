"""The best value of a swept key, how sure it is, and the ranking among the best."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_up_runs import write_run

from analysis.best import best
from analysis.rank import main
from analysis.ranking import rank
from analysis.resampling import REPLICATES, chosen, resampled
from analysis.results import build
from analysis.swept import Contender

KEY = ("optimizer.lr",)


def rows_of(costs: np.ndarray, names: list[str]):
    """Results of costs [C, n, K, 2] by contender."""
    records = [
        ("made up", {"variant": name, "seed": str(s), "steps": str(k), "fid": str(costs[c, s, k, 0]),
                     "clip": str(-costs[c, s, k, 1])})
        for c, name in enumerate(names) for s in range(costs.shape[1]) for k in range(costs.shape[2])
    ]  # fmt: skip
    return build(records)


def contenders_of(variants: int, values: int) -> dict[str, Contender]:
    made = [Contender(f"v{v}", KEY, (str(10.0**-k),)) for v in range(variants) for k in range(values)]
    return {one.name: one for one in made}


def test_the_best_of_each_variant_is_the_first_of_its_contenders_and_the_best_rank_among_themselves():
    rng = np.random.default_rng(0)
    for seeds in (1, 3):
        named = contenders_of(5, 3)
        costs = 10 + rng.random((15, seeds, 4, 2))
        rows = rows_of(costs, list(named))
        found = best(rows, named)
        order = [entry.variant for entry in rank(rows).entries]
        for variant, one in found.chosen.items():
            ranks = {e.variant: e.rank_all for e in rank(rows).entries if named[e.variant].variant == variant}
            assert ranks[one.name] == min(ranks.values())
            assert order.index(one.name) == min(order.index(name) for name in ranks) or len(set(ranks.values())) < 3
        alone = rank(rows_of(costs[[list(named).index(c.name) for c in found.chosen.values()]], list(found.chosen)))
        assert [(e.variant, e.rank_all) for e in found.ranking.entries] == [
            (e.variant, e.rank_all) for e in alone.entries
        ]
        assert bool(found.sure) == (seeds > 1)  # of one seed nothing is known


def test_how_sure_a_choice_is():
    rng = np.random.default_rng(1)
    level = np.repeat(np.arange(6) // 2, 1)[:, None, None, None] * 5.0 + 20
    gap = np.where(np.arange(6) % 2, 3.0, 0.0)[:, None, None, None]
    noise = rng.normal(0, 0.1, (6, 4, 3, 2))
    named = contenders_of(3, 2)
    clear = best(rows_of(level + gap + noise, list(named)), named)
    assert {c.values for c in clear.chosen.values()} == {("1.0",)}
    assert min(clear.sure.values()) > 0.99
    even = [best(rows_of(level + rng.normal(0, 0.1, (6, 4, 3, 2)), list(named)), named) for _ in range(10)]
    share = np.mean([list(found.sure.values()) for found in even])
    assert 0.5 < share < 0.9  # of two equal values the luckier one


def test_where_each_variant_has_one_value_nothing_is_chosen():
    costs = 10 + np.random.default_rng(2).random((4, 3, 5, 2))
    found, plain = chosen(costs, np.arange(4)), resampled(costs)
    assert found.share is not None
    assert found.noise is not None
    assert plain is not None
    assert list(found.share) == [1.0] * 4
    for name in ("se", "low", "high", "before"):
        np.testing.assert_array_equal(getattr(found.noise, name), getattr(plain, name))


def test_a_diverged_value_is_never_the_best_but_where_all_have_diverged():
    costs = 10 + np.random.default_rng(3).random((4, 2, 3, 2))
    costs[0] = np.nan
    found = chosen(costs, np.array([0, 0, 1, 1]))
    assert found.of_variant[0] == 1
    assert found.share is not None
    assert found.share[0] == 0
    assert found.share.sum() == pytest.approx(2)
    assert REPLICATES * found.share[2] == pytest.approx(round(REPLICATES * found.share[2]))
    costs[1] = np.nan
    assert chosen(costs, np.array([0, 0, 1, 1])).of_variant[0] in (0, 1)


def worsen(path: Path) -> None:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "fid": 2 * float(row["fid"]), "clip": float(row["clip"]) / 2} for row in rows)


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    """Two rates, of which the larger doubles every FID."""
    for name in ("rf", "v/cos", "edm/rf"):
        for seed in (0, 1):
            for lr in (1e-3, 1e-2):
                folder = write_run(tmp_path / "rates", name, seed=seed, lr=lr)
                if lr == 1e-2:
                    worsen(folder / "results.csv")
    return tmp_path / "rates"


def test_rank_takes_the_best_rate_and_says_which(rates: Path, capsys, tmp_path: Path) -> None:
    assert main([str(rates), "--best", "optimizer.lr", "--csv", "--scores", str(tmp_path / "scores.csv")]) == 0
    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["optimizer.lr"] for row in rows] == ["0.001"] * 3
    assert min(float(row["sure"]) for row in rows) > 0.95
    assert "best at the smallest or largest optimizer.lr tried" in said.err
    assert main([str(rates), "--csv", "--include-training", "*=0.001"]) == 0
    alone = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["variant"], row["rank_all"]) for row in rows] == [(row["variant"], row["rank_all"]) for row in alone]
    with (tmp_path / "scores.csv").open() as file:
        assert {row["optimizer.lr"] for row in csv.DictReader(file)} == {"0.001", "0.01"}


def test_runs_that_were_trained_differently_rank_apart_and_the_way_out_is_told(rates: Path, capsys) -> None:
    assert main([str(rates), "--csv"]) == 0
    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [row["training"] for row in rows] == ["optimizer.lr=0.001"] * 3 + ["optimizer.lr=0.01"] * 3
    assert "--best optimizer.lr takes the best of each variant" in said.err


def test_a_key_that_does_not_differ_is_refused(rates: Path, capsys) -> None:
    assert main([str(rates), "--best", "trainer.steps"]) == 2
    assert "trainer.steps: no two of these runs differ in it; allowed are optimizer.lr" in capsys.readouterr().err


def test_a_depth_is_chosen_though_it_is_part_of_the_backbones_name(tmp_path: Path, capsys) -> None:
    for depth in (2, 4):
        for name in ("rf", "v/cos"):
            folder = write_run(tmp_path / f"d{depth}", name)
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["backbone"]["depth"] = depth
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            rows = (folder / "results.csv").read_text().replace("mmdit-d4", f"mmdit-d{depth}")
            (folder / "results.csv").write_text(rows)
    assert main([str(tmp_path), "--csv", "--best", "backbone.depth"]) == 0
    said = capsys.readouterr()
    assert {row["backbone.depth"] for row in csv.DictReader(io.StringIO(said.out))} <= {"2", "4"}
    assert {row["sure"] for row in csv.DictReader(io.StringIO(said.out))} == {""}
    assert "how sure is not known" in said.err
