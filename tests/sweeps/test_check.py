"""`sweeps check` finds every fault that is put into a whole sweep, says a remedy, and repairs only what is safe."""

import json
import os
import re
import shutil
import zipfile

import pytest

from flowzoo.build import evaluation_of
from flowzoo.runs.lock import LOCK
from flowzoo.runs.signals import STOPS
from flowzoo.runs.store import Run
from flowzoo.scoring import places_of
from sweeps.__main__ import main
from sweeps.check import damage, problems
from sweeps.definition import Sweep
from sweeps.manifest import PLAN, Manifest
from sweeps.plan import plan_of
from sweeps.standing import standings


@pytest.fixture(scope="module")
def plan() -> Manifest:
    return plan_of(Sweep("x", ["rf", "eps/linear"]), ["evaluation=quick"])


@pytest.fixture
def manifest(plan, tmp_path, monkeypatch) -> Manifest:
    """Two runs: one is done, the other has not begun."""
    monkeypatch.chdir(tmp_path)
    plan.write()
    cfg = plan.runs[0].cfg
    run = Run.create(cfg)
    run.set_status("done", step=cfg.trainer.steps, steps=cfg.trainer.steps)
    run.write_rows([{"weights": p.weights, **vars(p.setting)} for p in places_of(evaluation_of(cfg))])
    run.append_metrics({"step": 1})
    (run.path / "checkpoints").mkdir()
    for name in ("last", "best"):
        with zipfile.ZipFile(run.path / "checkpoints" / f"{name}.ckpt", "w") as archive:
            archive.writestr(f"{name}/data.pkl", b"x" * 100)
    return plan


@pytest.fixture
def run(manifest) -> Run:
    return manifest.run(manifest.runs[0])


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewritten(run, *changes):
    cfg = run.config
    for key, value in changes:
        cfg[key[0]][key[1]] = value
    run.set_config(cfg)


FAULTS = {
    "cut plan": (lambda run: cut(run.path.parent / PLAN), "cannot read .*plan.jsonl"),
    "cut status": (lambda run: cut(run.path / "status.json"), "cannot read .*status.json"),
    "unknown state": (lambda run: run.write_json("status.json", {"state": "well"}), "state=well: allowed are queued"),
    "lost": (lambda run: run.set_status("running"), "is lost, running without a living owner"),
    "half trained": (lambda run: run.set_status("done", step=3), "is done at step 3 of"),
    "cut config": (lambda run: (run.path / "config.yaml").write_text("seed: ["), "cannot read .*config.yaml"),
    "no config": (lambda run: (run.path / "config.yaml").write_text("a: 1"), "is no config of a run"),
    "other weights": (lambda run: rewritten(run, (("optimizer", "lr"), 0.5)), "config.yaml is that of rf-s0-"),
    "other scores": (lambda run: rewritten(run, (("evaluation", "seed"), 5)), r"evaluation\.seed=5, planned 0"),
    "twice": (lambda run: shutil.copytree(run.path, run.path.with_name("copy")), "is the same run as rf-s0-"),
    "cut rows": (lambda run: cut(run.path / "results.csv"), "cut short"),
    "no rows": (lambda run: (run.path / "results.csv").unlink(), "lacks 4 of 4 settings"),
    "cut last": (lambda run: cut(run.path / "checkpoints" / "last.ckpt"), "checkpoints/last.ckpt is damaged"),
    "empty best": (lambda run: (run.path / "checkpoints" / "best.ckpt").write_bytes(b""), "best.ckpt is damaged"),
    "leftovers": (lambda run: (run.path / "checkpoints" / "last.ckpt.part").touch(), "killed process: last.ckpt.part"),
    "half file": (lambda run: (run.path / ".status.json.01234567").touch(), "killed process: .status.json.01234567"),
    "half plan": (lambda run: (run.path.parent / f".{PLAN}.0123abcd").touch(), "killed process: .plan.jsonl.0123abcd"),
    "stray folder": (lambda run: (run.path.parent / "notes").mkdir(), "holds neither config.yaml nor status.json"),
}
SAFE = {"cut status", "unknown state", "lost", "leftovers", "half file", "half plan"}


def test_a_whole_sweep_has_no_problems(manifest, capsys):
    assert list(problems(manifest.folder, deep=True)) == []
    assert main(["check", "x"]) == 0
    assert capsys.readouterr().out == "runs/x: 1 run folders, no problems\n"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_only_safe_ones_are_repaired(manifest, run, fault, capsys):
    breaks, words = FAULTS[fault]
    breaks(run)
    before = {p: p.read_bytes() for p in manifest.folder.rglob("*") if p.is_file()}
    found = list(problems(manifest.folder))
    assert any(re.search(words, problem.what) for problem in found), found
    assert all(problem.remedy for problem in found)
    assert main(["check", "x"]) == 1
    assert {p: p.read_bytes() for p in manifest.folder.rglob("*") if p.is_file()} == before
    assert main(["check", "x", "--repair"]) == (0 if fault in SAFE else 1)
    assert list(problems(manifest.folder)) == [problem for problem in problems(manifest.folder) if not problem.repair]
    kept = {p: p.read_bytes() for p in before if p.exists()}
    gone = {p.name for p in before if not p.exists()}
    assert all(name.endswith(".part") or name.startswith(".") for name in gone)
    changed = {p.name for p in kept if kept[p] != before[p]}
    assert changed <= {"status.json"}


def test_a_report_beside_the_runs_is_none_of_them(manifest):
    (manifest.folder / "report").mkdir()
    (manifest.folder / "report" / "report.html").touch()
    assert list(problems(manifest.folder)) == []
    (manifest.folder / PLAN).unlink()
    assert [row.id for row in standings(manifest.folder)] == [manifest.runs[0].id]


def test_a_file_in_the_place_of_a_run_folder_is_found(manifest, capsys):
    (manifest.folder / manifest.runs[1].id).touch()
    assert main(["check", "x"]) == 1
    assert f"{manifest.runs[1].id}: is a file in the place of a run folder" in capsys.readouterr().out


def test_a_repaired_run_is_preempted_and_knows_its_variant(run):
    cut(run.path / "status.json")
    assert main(["check", "x", "--repair"]) == 0
    assert (run.state, run.status["variant"]) == ("preempted", "rf")


def test_what_is_at_work_is_left_alone(manifest, run, capsys):
    (run.path / "checkpoints" / "last.ckpt.part").touch()
    with run.lock():
        run.set_status("running", step=1)
        assert main(["check", "x", "--repair"]) == 0
        assert run.state == "running"
        assert (run.path / "checkpoints" / "last.ckpt.part").exists()
        assert (run.path / LOCK).exists()


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_waits_until_a_repair_is_whole(run, monkeypatch, in_a_terminal, number):
    run.set_status("running")
    told = Run.set_status

    def struck(self, *args, **fields):
        os.kill(os.getpid(), number)
        told(self, *args, **fields)

    monkeypatch.setattr(Run, "set_status", struck)
    assert main(["check", "x", "--repair"]) == 130
    assert run.state == "preempted"
    assert not list(run.path.glob(".lock*"))


def test_json_names_problem_remedy_and_what_was_repaired(manifest, run, capsys):
    run.set_status("running")
    cut(run.path / "results.csv")
    assert main(["check", "x", "--json", "--repair"]) == 1
    said = json.loads(capsys.readouterr().out)["problems"]
    assert [problem["repaired"] for problem in said] == [True, False]
    assert "SWEEP" not in said[0]["remedy"]


def test_a_flipped_byte_is_found_by_reading_deep(run):
    path = run.path / "checkpoints" / "last.ckpt"
    content = bytearray(path.read_bytes())
    content[content.index(b"xxxx") + 50] ^= 1
    path.write_bytes(content)
    assert damage(path) == ""
    assert "checksum" in damage(path, deep=True)


def test_a_sweep_without_a_plan_is_checked_too(manifest, run):
    (manifest.folder / PLAN).unlink()
    assert list(problems(manifest.folder)) == []
    run.set_status("running")
    assert len(list(problems(manifest.folder))) == 1


def test_runs_that_were_trained_on_other_data_are_told(manifest):
    for planned, fingerprint in zip(manifest.runs, ("one", "other"), strict=True):
        (Run.create(planned.cfg).path / "data.json").write_text(json.dumps({"fingerprint": fingerprint}))
    (told,) = [p for p in problems(manifest.folder) if "other data" in p.what]
    assert (told.run, told.repair) == (manifest.runs[0].id, None)  # of two the first by name counts as usual
    assert "was trained on other data (one) than 1 run of this sweep (other)" in told.what
    (manifest.run(manifest.runs[1]).path / "data.json").write_text(json.dumps({"fingerprint": "one"}))
    assert not [p for p in problems(manifest.folder) if "other data" in p.what]
