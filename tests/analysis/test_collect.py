import json
from pathlib import Path

import pytest
import yaml
from made_up_runs import PCA, PIXELS, write_run

from analysis.collect import collect, results
from analysis.ranking import rank
from analysis.results import apart
from analysis.study import studies


def test_a_run_tells_what_its_files_say(sweep: Path) -> None:
    runs = {run.variant: run for run in collect([sweep]).runs}
    assert len(runs) == 17
    run = runs["rf/lognorm(0.00,1.00)"]
    assert (run.state, run.seed, run.seconds) == ("done", "0", 41.0)
    assert 900 <= (run.images_per_s or 0) <= 901
    assert len(run.rows) == 18
    assert run.metrics[-1]["step"] == 300  # the half-written line after it is passed over
    assert {len(column) for column in run.density.values()} == {199}
    assert len(run.prompts) == 16
    unscored = runs["rf/lognorm(1.00,2.20)"]  # its config says what rows would
    assert (unscored.dataset, unscored.backbone) == (run.dataset, run.backbone) == ("shapes", "mmdit-d4-w128")
    assert runs["rf/mode(1.75)"].exception == "ValueError: loss is nan at step 120"


def test_runs_with_missing_and_broken_files_are_collected(tmp_path: Path) -> None:
    folder = tmp_path / "rf_lognorm_0.00_1.00-s3-0123abcd"
    folder.mkdir()
    (folder / "status.json").write_text('{"state": "runn')
    (folder / "config.yaml").write_text("a: [1")
    (folder / "density.csv").write_text("u,t\n0.5\n")
    (folder / "metrics.jsonl").write_text('{"step": 1, "train_loss": 2.0}\n[]\n{"st')
    (folder / "results.csv").write_text("variant,fid,clip\nrf,1.0,0.2\nrf,1.")
    (run,) = collect([tmp_path]).runs
    assert (run.status, run.config, run.density, run.extractor) == ({}, {}, {}, {})
    assert run.metrics == [{"step": 1, "train_loss": 2.0}]
    assert run.rows == [{"variant": "rf", "fid": "1.0", "clip": "0.2"}]
    assert (run.variant, run.seed, run.grid, run.images_per_s, run.seconds) == ("rf", "3", None, None, None)
    assert sorted(run.unreadable) == ["config.yaml", "density.csv", "results.csv", "status.json"]
    assert run.state == "damaged"


def test_a_row_cut_short_inside_its_last_cell_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "rf-s0-0123abcd"
    folder.mkdir()
    (folder / "results.csv").write_text("variant,fid,clip,protocol\nrf,1.0,0.2,abcd\nrf,2.0,0.2,ab")
    (run,) = collect([tmp_path]).runs
    assert [row["protocol"] for row in run.rows] == ["abcd"]
    (told,) = run.complaints()
    assert told.startswith(f"cannot read {folder / 'results.csv'}: it is cut short")


def test_a_run_without_any_file_but_a_config_is_named_by_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "edm_rf-s1-0123abcd"
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 1\n")
    (run,) = collect([tmp_path]).runs
    assert (run.variant, run.seed, run.state) == ("edm_rf", "1", "missing")


def test_the_state_of_a_run_holds_for_its_rows(sweep: Path) -> None:
    first = collect([sweep]).runs[0]
    status = {**first.status, "state": "stopped"}
    (first.path / "status.json").write_text(json.dumps(status))
    entry = next(e for e in rank(results(collect([sweep]).runs)).entries if e.variant == first.variant)
    assert entry.rank_all is None
    assert "stopped" in entry.reason


def test_a_diverged_run_without_rows_ranks_in_its_own_data_set(tmp_path: Path) -> None:
    for dataset in ("shapes", "cifar10"):
        for name in ("rf", "v/cos"):
            write_run(tmp_path, name, dataset=dataset)
    write_run(tmp_path, "edm(1.20,1.80)", state="diverged", dataset="shapes")
    bad = next(e for e in rank(results(collect([tmp_path]).runs)).entries if e.diverged)
    assert (bad.n_settings, bad.rank_all) == (12, None)


def test_a_run_whose_owner_is_gone_is_lost(tmp_path: Path) -> None:
    write_run(tmp_path, "rf")
    lock = write_run(tmp_path, "v/cos", state="running") / ".lock"
    assert [run.state for run in collect([tmp_path]).runs] == ["done", "running"]
    lock.unlink()
    assert [run.state for run in collect([tmp_path]).runs] == ["done", "lost"]
    (entry,) = rank(results(collect([tmp_path]).runs)).unranked
    assert entry.reason == "lost, 0 of 12 settings"


def test_a_planned_run_without_a_folder_is_queued(tmp_path: Path) -> None:
    for name in ("rf", "v/cos"):
        write_run(tmp_path, name)
    known = {"variant": "edm/rf", "seed": 0, "dataset": "shapes", "backbone": "mmdit-d4-w128", "steps": 300}
    lines = [
        {"sweep": "made_up", "runs": 2},
        {"id": collect([tmp_path]).runs[0].name},
        {"id": "edm_rf-s0-01234567", **known},
    ]
    (tmp_path / "plan.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"id": "cut sh')
    runs = collect([tmp_path]).runs
    assert [(run.variant, run.state) for run in runs] == [("edm/rf", "queued"), ("rf", "done"), ("v/cos", "done")]
    (late,) = rank(results(runs)).unranked
    assert (late.variant, late.reason) == ("edm/rf", "queued, 0 of 12 settings")


def test_configs_read_by_block_are_configs_read_whole(tmp_path: Path) -> None:
    text = "a: 1\nlist:\n- x\n- {y: 2}\n# said\nb:\n  c: |\n    d: 3\n\n    e\n  f: 'g\n    h: i'\n'q: r': null\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(text)
    (run,) = collect([tmp_path]).runs
    assert run.config == yaml.safe_load(text)
    first = write_run(tmp_path / "sweep", "rf")
    assert collect([tmp_path / "sweep"]).runs[0].config == yaml.safe_load((first / "config.yaml").read_text())


def test_two_runs_of_one_variant_and_seed_are_refused_by_name(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "rf")
    write_run(tmp_path / "b", "rf")
    with pytest.raises(ValueError, match=r"two rows for rf, seed 0.*a/rf-s0.*b/rf-s0"):
        results(collect([tmp_path]).runs, together=["sweep"])


def test_two_sweeps_never_pool_by_accident(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "rf")
    write_run(tmp_path / "b", "rf")
    write_run(tmp_path / "c", "v/cos", autoencoder=PIXELS)
    rows = results(collect([tmp_path]).runs)
    assert rows.values("sweep") == ["a", "b", "c"]
    assert len(apart(rows, ["sweep"])) == 3
    # nothing of what lies in b and c would pool
    assert results(collect([tmp_path / "b", tmp_path / "c"]).runs).values("sweep") == []
    (tmp_path / "more").mkdir()
    (tmp_path / "b").rename(tmp_path / "more" / "a")  # two of one name are told by their paths
    assert results(collect([tmp_path]).runs).values("sweep") == [str(tmp_path / name) for name in ("a", "c", "more/a")]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        collect([tmp_path])
    with pytest.raises(ValueError, match="not a folder"):
        collect([tmp_path / "absent"])


def test_runs_that_were_trained_differently_are_told_apart(tmp_path: Path) -> None:
    for name in ("rf", "v/cos"):
        for lr in (1e-3, 1e-4):
            write_run(tmp_path, name, lr=lr)
    runs = collect([tmp_path]).runs
    rows = results(runs)
    assert rows.values("training") == ["optimizer.lr=0.0001", "optimizer.lr=0.001"]
    assert len(rank(rows).settings) == 24
    one = rank(rows.include({"training": ["*=0.001"]}))
    assert len(one.settings) == 12
    assert {entry.variant for entry in one.ranked} == {"rf", "v/cos"}
    assert [study.title for study in studies(runs, rows)] == [
        "shapes, pca-f4-c16, mmdit-d4-w128, optimizer.lr=0.0001",
        "shapes, pca-f4-c16, mmdit-d4-w128, optimizer.lr=0.001",
    ]


def test_runs_without_scores_stay_with_those_that_were_trained_as_they_were(tmp_path: Path) -> None:
    for name in ("rf", "v/cos", "eps/linear"):
        for lr in (1e-3, 1e-4):
            states = {("v/cos", 1e-3): "diverged", ("eps/linear", 1e-4): "failed"}
            write_run(tmp_path, name, lr=lr, state=states.get((name, lr), "done"))
    runs = collect([tmp_path]).runs
    slow, fast = studies(runs, results(runs))
    assert [len(study.runs) for study in (slow, fast)] == [3, 3]
    assert [entry.variant for entry in fast.ranking.entries if entry.diverged] == ["v/cos"]
    assert [entry.variant for entry in slow.ranking.unranked] == ["eps/linear"]
    assert "failed" in slow.ranking.unranked[0].reason


def test_a_run_without_a_config_says_nothing_of_training(tmp_path: Path) -> None:
    for lr in (1e-3, 1e-4):
        write_run(tmp_path, "rf", lr=lr)
    (write_run(tmp_path, "rf", lr=1e-5, state="running") / "config.yaml").write_text("a: [1")
    assert results(collect([tmp_path]).runs).values("training") == ["optimizer.lr=0.0001", "optimizer.lr=0.001"]


def test_a_value_that_another_is_interpolated_from_is_told_once(tmp_path: Path) -> None:
    for captions in ("mix", "terse"):
        folder = write_run(tmp_path / captions, "rf")
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["captions"] = config["data"]["source"]["captions"] = captions
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert results(collect([tmp_path]).runs).values("training") == ["captions=mix", "captions=terse"]


def test_other_variants_and_seeds_alone_say_nothing_of_training(tmp_path: Path) -> None:
    for name, seed in (("rf", 0), ("v/cos", 0), ("rf", 1)):
        write_run(tmp_path, name, seed=seed)
    write_run(tmp_path, "rf", dataset="cifar10", lr=1e-4)  # with which nothing compares
    write_run(tmp_path, "rf", autoencoder=PIXELS, lr=1e-4)
    assert "training" not in results(collect([tmp_path]).runs).columns


def test_variants_that_were_trained_differently_rank_together_only_where_asked(tmp_path: Path) -> None:
    for name, lr in (("rf", 1e-4), ("v/cos", 1e-3)):
        write_run(tmp_path, name, lr=lr)
    runs = collect([tmp_path]).runs
    with_rates = rank(results(runs))
    assert (len(with_rates.settings), with_rates.ranked) == (24, [])
    together = rank(results(runs, together=["optimizer.lr"]))
    assert {entry.variant for entry in together.ranked} == {"rf", "v/cos"}
    with pytest.raises(ValueError, match=r"--together lr: no run has this key; allowed are .*optimizer\.lr"):
        results(runs, together=["lr"])


def test_representations_never_rank_together(tmp_path: Path) -> None:
    for name in ("rf", "v/cos"):
        for autoencoder in (PCA, PIXELS, {**PCA, "gain": 0.5}):
            write_run(tmp_path, name, autoencoder=autoencoder)
    rows = results(collect([tmp_path]).runs)
    assert rows.values("representation") == ["pca-f4-c16", "pca-f4-c16-gain0.5", "pixels"]
    assert (len(rank(rows).settings), "training" in rows.columns) == (36, False)
    assert len(rank(rows.include({"representation": ["pixels"]})).settings) == 12
