"""What is planned: crossed, checked, frozen, and estimated from what was measured."""

import pytest

from flowzoo.runs.store import Run
from sweeps.__main__ import main
from sweeps.benched import Estimate
from sweeps.definition import Sweep, load
from sweeps.estimate import parts
from sweeps.manifest import PLAN, Manifest
from sweeps.plan import plan_of


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_everything_is_crossed_and_the_command_line_wins():
    sweep = Sweep("x", ["rf", "v/cos"], backbones=["dit", "mmdit"], seeds=[0, 1], overrides=["trainer.steps=3"])
    planned = plan_of(sweep, ["backbone=dit", "trainer.steps=4"]).runs
    assert [(run.seed, run.variant) for run in planned] == [(0, "rf"), (0, "v/cos"), (1, "rf"), (1, "v/cos")]
    assert all(run.steps == 4 and run.backbone.startswith("dit-") for run in planned)
    crossed = plan_of(Sweep("x", ["rf"], cross={"optimizer.lr": [1e-4, "3e-4"]}), ["seeds=2"]).runs
    assert [(run.seed, run.config["optimizer"]["lr"]) for run in crossed] == [
        (0, 1e-4),
        (0, 3e-4),
        (1, 1e-4),
        (1, 3e-4),
    ]
    assert len({run.id for run in crossed}) == 4


def test_the_demo_is_planned():
    assert [run.variant for run in plan_of(load("demo")).runs] == list(load("demo").variants)


def test_mistakes_are_refused_and_nothing_is_written(tmp_path, capsys):
    for word, named in [
        *(("trainer.steps=0", "trainer.steps=0"), ("foo=1", "foo"), ("path=rf", "variant=rf"), ("seeds=0", "seeds=0")),
        *(("solver=recombine,heun", "the same run"), ("sweep=a,b", "allowed is one folder")),
    ]:
        assert main(["plan", "demo", "variant=rf", word]) == 2
        assert named in capsys.readouterr().err
    for command in (["run", "demo", "engine=many"], ["run", "demo", "trainer.log_every=0"], ["plan", "nothing"]):
        assert main(command) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_is_planned_stays(monkeypatch, capsys, tmp_path):
    given = []
    monkeypatch.setattr("sweeps.run.work", lambda folder, ids, execution: given.append((ids, execution)) or 0)
    (tmp_path / "mine.yaml").write_text("variants: [rf]\n")
    assert main(["run", "mine.yaml", "trainer.steps=3", "data.workers=1"]) == 0
    (tmp_path / "mine.yaml").write_text("variants: [rf, v/cos]\n")
    for words in ([], ["trainer.steps=3"], ["trainer.log_every=7"]):
        assert main(["run", "mine.yaml", *words]) == 0
    (planned,) = Manifest.read("runs/mine").runs
    assert given == [([planned.id], words) for words in (["data.workers=1"], [], [], ["trainer.log_every=7"])]
    before = (tmp_path / "runs" / "mine" / PLAN).read_text()
    capsys.readouterr()
    for sweep in ("mine.yaml", "runs/mine"):
        assert main(["run", sweep, "trainer.steps=4"]) == 2
        assert "trainer.steps=4" in capsys.readouterr().err
    assert main(["plan", "mine.yaml"]) == 0
    assert "the sweep says otherwise by now" in capsys.readouterr().out
    assert (tmp_path / "runs" / "mine" / PLAN).read_text() == before
    assert main(["plan", "mine.yaml", "--replace"]) == 0
    assert [run.variant for run in Manifest.read("runs/mine").runs] == ["rf", "v/cos"]


def test_one_seed_is_no_result(capsys):
    assert main(["plan", "demo", "variant=rf"]) == 0
    assert "a seed is not a result" in capsys.readouterr().out
    assert main(["plan", "demo", "variant=rf", "seeds=3", "sweep=three"]) == 0
    assert "a seed is not a result" not in capsys.readouterr().out


def test_hours_are_those_of_runs_alike(capsys):
    words = ["variant=rf,v_cos", "trainer.steps=1000", "trainer.batch_size=36"]
    measured = plan_of(load("demo"), [*words, "sweep=before"])
    measured.write()
    for planned, speed in zip(measured.runs, (90, 110), strict=True):
        run = Run.create(planned.cfg)
        for step, value in enumerate((1, speed, speed + 1, speed - 1)):
            run.append_metrics({"step": step, "images_per_s": value})
        run.set_status("done", step=1000, host="there")
    (part,) = parts(plan_of(load("demo"), [*words, "seeds=2"]))
    assert (part.runs, part.finished, part.steps, part.steps_left) == (4, 0, 4000, 4000)
    assert part.hours == pytest.approx(4000 * 36 / 100 / 3600)
    assert str(part.speed) == "100 images/s, by 2 runs of runs/before on there"
    (own,) = parts(measured)
    assert (own.finished, own.steps_left, own.hours) == (2, 0, 0)
    (other,) = parts(plan_of(load("demo"), [*words, "backbone.depth=2"]))
    assert isinstance(other.speed, Estimate)
    assert main(["plan", "demo", *words, "backbone.depth=2"]) == 0
    assert "about, by the bench" in capsys.readouterr().out
