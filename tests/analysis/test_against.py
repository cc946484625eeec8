"""Scores against a swept key."""

from pathlib import Path

import pytest
import yaml
from altair.vegalite.v6.schema.core import Root
from made_up_runs import PCA, PIXELS, write_run

from analysis.against import against
from analysis.collect import collect, results
from analysis.objectives import DEFAULT


def found_in(*places: Path):
    runs = collect(places).runs
    return against(results(runs), runs, DEFAULT)


def deeper(folder: Path, depth: int) -> None:
    """A run folder as that of a network of another depth."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["backbone"]["depth"] = depth
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    text = (folder / "results.csv").read_text()
    (folder / "results.csv").write_text(text.replace("mmdit-d4", f"mmdit-d{depth}"))


def test_a_line_a_variant_over_the_rate(tmp_path: Path) -> None:
    for name in ("rf", "v/cos"):
        for seed in (0, 1):
            for lr in (1e-4, 1e-3, 1e-2):
                write_run(tmp_path / "runs", name, seed=seed, lr=lr)
    (one,) = found_in(tmp_path)
    assert one.key == "optimizer.lr"
    assert one.is_numeric
    assert set(one.lines) == {"rf", "v/cos"}
    words = [words for words, _, _ in one.measures]
    assert words[:3] == ["average rank", "FID, mean over settings", "CLIP score, mean over settings"]
    rows = one.rows()
    first = [row for row in rows if row["at"] == 0]
    assert sorted({row["x"] for row in first}) == [1e-4, 1e-3, 1e-2]
    entries = {entry.variant: entry for entry in one.parts[0].best.among_all.ranked}
    for row in first:
        entry = entries[f"{row['variant']}, optimizer.lr={row['x']:g}"]
        assert row["value"] == pytest.approx(entry.rank_all, rel=1e-4)
        assert row["low"] <= row["value"] <= row["high"]
    for at in range(len(words)):
        for line in one.lines:
            own = [row for row in rows if (row["at"], row["line"]) == (at, line)]
            assert [row["x"] for row in own if row["last"]] == [1e-2]
            (best,) = (row["value"] for row in own if row["best"])
            assert best == (max if "CLIP" in words[at] else min)(row["value"] for row in own)
    Root.validate(one.chart({"rf": "#000000", "v/cos": "#111111"}))


def test_a_line_a_representation_over_the_depth(tmp_path: Path) -> None:
    """Their protocols differ in the autoencoder alone."""
    for autoencoder in (PCA, PIXELS):
        for depth in (2, 4, 8):
            folder = write_run(tmp_path / f"{autoencoder['_target_']}{depth}", "rf", autoencoder=autoencoder)
            deeper(folder, depth)
            if autoencoder is PIXELS:
                for name in ("results.csv", "extractor.json"):
                    (folder / name).write_text((folder / name).read_text().replace("a1b2c3d4", "99999999"))
    (one,) = (one for one in found_in(tmp_path) if one.key == "backbone.depth")
    assert set(one.lines) == {"pca-f4-c16", "pixels"}
    assert "average rank" not in [words for words, _, _ in one.measures]  # nothing to rank with
    assert {row["x"] for row in one.rows()} == {2, 4, 8}
    Root.validate(one.chart({"rf": "#000000"}))


def test_other_judges_have_a_chart_of_their_own(tmp_path: Path) -> None:
    for dataset in ("shapes", "photos"):
        for lr in (1e-3, 1e-2):
            write_run(tmp_path / "runs", "rf", lr=lr, dataset=dataset)
    assert [one.where for one in found_in(tmp_path)] == ["photos", "shapes"]


def test_without_swept_keys_there_is_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "rf")
    write_run(tmp_path / "runs", "v/cos")
    assert found_in(tmp_path) == []
