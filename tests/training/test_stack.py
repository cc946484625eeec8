"""A stack of runs: each ends as it would have ended alone, whatever happens to it or to the others on the way."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from flowzoo import train
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder
from flowzoo.runs.signals import Notice
from flowzoo.runs.store import Interrupted, Run
from flowzoo.training.checkpoint import last_step
from flowzoo.training.program import Program

DOUBLE = ["trainer.precision=64-true"]
SHORT = [*DOUBLE, "trainer.steps=6", "trainer.val_every=3", "trainer.checkpoint_every=2"]
# one of each schedule, target and timestep law among the 61
FAMILIES = [
    *("rf", "rf_lognorm_0.50_0.60", "rf_mode_1.29", "rf_cosmap", "eps_linear", "v_linear", "eps_cos", "v_cos"),
    *("edm_-1.20_1.20", "edm_rf", "edm_cos"),
]
Jobs = Callable[..., list[DictConfig]]


@pytest.fixture
def jobs(tiny_jobs: Jobs) -> Jobs:
    """The configs of a tiny multirun; `runs` names the folder that they go to."""

    def compose(runs: str, variants: Sequence[str], *overrides: str, stacked: bool = False) -> list[DictConfig]:
        words = [f"variant={','.join(variants)}", *overrides, *["trainer=stacked"] * stacked]
        return [alone(cfg) for cfg in tiny_jobs(*words, runs=runs)]

    return compose


def solo(cfgs: Iterable[DictConfig]) -> None:
    for cfg in cfgs:
        train.run(cfg)


def checkpoint(cfg: DictConfig, name: str = "last") -> dict[str, Any]:
    return torch.load(run_folder(cfg) / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_near(one: Any, other: Any, tolerance: float, where: str = "") -> None:
    """Of the same structure, with numbers and tensors that agree."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, where
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=lambda m: f"{where}: {m}")
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_near(one[key], other[key], tolerance, f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_near(*pair, tolerance, f"{where}/{i}")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=max(tolerance, 1e-6), abs=tolerance), where
    else:
        assert one == other, where


def assert_twins(ones: Sequence[DictConfig], others: Sequence[DictConfig]) -> None:
    """Checkpoints to 1e-10, the same records, rows and files."""
    for one, other in zip(ones, others, strict=True):
        for name in ("last", "best"):
            a, b = checkpoint(one, name), checkpoint(other, name)
            assert_near(a["state_dict"], b["state_dict"], 1e-10, name)
            assert_near(a["ema"], b["ema"], 1e-10, name)
            rest = ("optimizer", "global_step", "since_last_record", "val_loss_ema")
            assert_near(*({k: c[k] for k in rest if k in c} for c in (a, b)), 1e-9, name)
        timing = ("images_per_s", "loader_wait", "seconds")
        runs = [Run.open(run_folder(cfg)) for cfg in (one, other)]
        records, rows = (
            [[{k: v for k, v in r.items() if k not in timing} for r in read(run)] for run in runs]
            for read in (Run.metrics, Run.rows)
        )
        assert_near(*records, 1e-8, "records")
        key = lambda row: (row["weights"], row["steps"], row["guidance"])  # noqa: E731
        assert_near(sorted(rows[0], key=key), sorted(rows[1], key=key), 1e-8, "rows")
        assert {**runs[0].config, "runs": ""} == {**runs[1].config, "runs": ""}
        files = [{p.relative_to(run.path) for p in run.path.rglob("*") if p.is_file()} for run in runs]
        assert files[0] == files[1]
        assert [run.state for run in runs] == ["done", "done"]


@pytest.mark.slow
def test_every_family_after_20_steps_and_its_rows(jobs: Jobs) -> None:
    words = [*DOUBLE, "trainer.steps=20", "trainer.val_every=10", "trainer.checkpoint_every=10"]
    stack, each = jobs("stack", FAMILIES, *words, stacked=True), jobs("solo", FAMILIES, *words)
    assert [run_folder(cfg).name for cfg in stack] == [run_folder(cfg).name for cfg in each]
    train.run(*stack)
    solo(each)
    assert_twins(stack, each)


def test_mixed_precision_updates_float32_weights(jobs: Jobs) -> None:
    words = ["trainer.precision=bf16-mixed", *SHORT[1:]]
    stack, each = (jobs(runs, ["rf", "edm_cos"], *words) for runs in ("stack", "solo"))
    train.run(*stack)
    solo(each)
    for one, other in zip(stack, each, strict=True):
        assert {x.dtype for x in checkpoint(one)["state_dict"].values()} == {torch.float32}
        losses = [
            [r["train_loss"] for r in Run.open(run_folder(c)).metrics() if "train_loss" in r] for c in (one, other)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.parametrize("backbone", ["dit", "crossdit", "uvit", "mmdit3"])
def test_every_backbone(jobs: Jobs, backbone: str) -> None:
    """The text of two encoders, so that mmdit3 has its three streams."""
    words = [*DOUBLE, f"backbone={backbone}", "trainer.steps=3", "trainer.val_every=3", "evaluation.weights=[raw]"]
    sizes = ["backbone.depth=2", "backbone.width=32", "backbone.heads=2", "text=clip_words", "optimizer.lr=1e-2"]
    words += [*sizes, "evaluation.settings=[{steps: 2, guidance: 2.0}]", "trainer.checkpoint_every=3"]
    stack, each = (jobs(runs, ["rf", "edm_cos"], *words) for runs in ("stack", "solo"))
    train.run(*stack)
    solo(each)
    assert_twins(stack, each)


def test_rates_decays_and_seeds_of_ones_own(jobs: Jobs) -> None:
    def cfgs(runs: str) -> list[DictConfig]:
        one = jobs(runs, ["edm_cos"], *SHORT, "seed=0,3")
        return [
            *one,
            *jobs(runs, ["rf"], *SHORT, "optimizer.lr=1e-2", "optimizer.weight_decay=0.3"),
            *jobs(runs, ["v_cos"], *SHORT, "optimizer.weight_decay=0.1", "seed=3"),
        ]

    train.run(*cfgs("stack"))
    solo(cfgs("solo"))
    assert_twins(cfgs("stack"), cfgs("solo"))


def stopping_at(step: int, monkeypatch: pytest.MonkeyPatch, run: Callable[[], None]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Notice, "given", lambda self, trainer: trainer.global_step == step)
        with pytest.raises(Interrupted):
            run()


def test_from_solo_to_stacked_to_solo(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps alone, two together, two alone: equal to six alone."""
    names = ["rf_lognorm_0.50_0.60", "v_cos"]
    moved, undisturbed = jobs("moved", names, *SHORT), jobs("undisturbed", names, *SHORT)
    for cfg in moved:
        stopping_at(2, monkeypatch, lambda cfg=cfg: train.run(cfg))  # type: ignore[misc]
    stopping_at(4, monkeypatch, lambda: train.run(*moved))
    assert [Run.open(run_folder(cfg)).status["step"] for cfg in moved] == [4, 4]
    assert [Run.open(run_folder(cfg)).state for cfg in moved] == ["preempted"] * 2
    solo(moved)
    solo(undisturbed)
    assert_twins(moved, undisturbed)


def test_killed_between_two_files(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """One variant has the checkpoint of step 4 and the others that of step 2: those are brought up to it first."""
    from flowzoo.training import checkpoint as checkpoints

    names = ["rf", "eps_linear", "edm_rf"]
    killed, undisturbed = jobs("killed", names, *SHORT), jobs("undisturbed", names, *SHORT)
    real, written = checkpoints.write_atomically, []

    def dies(path: Any, write: Any) -> None:
        written.append(path.name)
        if written.count("last.ckpt") == 5:
            raise SystemError("killed")
        real(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_atomically", dies)
        with pytest.raises(SystemError):
            train.run(*killed)
    assert [last_step(Run.open(run_folder(cfg))) for cfg in killed] == [4, 2, 2]
    train.run(*killed)
    train.run(*undisturbed)
    assert_twins(killed, undisturbed)


def test_one_that_is_not_finite_leaves_the_others_bit_for_bit(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["rf", "v_cos", "edm_cos"]
    broken, whole = jobs("broken", names, *SHORT), jobs("whole", names, *SHORT)
    real = Program.step

    def step(self: Program, batch: Any, number: int) -> None:
        if number == 3:
            self.rows[1] *= float("nan")
        real(self, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(Program, "step", step)
        train.run(*broken)
    train.run(*whole)
    for i in (0, 2):
        for name in ("last", "best"):
            one, other = (checkpoint(cfgs[i], name) for cfgs in (broken, whole))
            for part in ("state_dict", "ema", "optimizer"):
                assert_near(one.get(part, {}), other.get(part, {}), 0.0)
    runs = [Run.open(run_folder(cfg)) for cfg in broken]
    assert [run.state for run in runs] == ["done", "diverged", "done"]
    assert runs[1].status["step"] == 4
    assert [(r["status"], r["fid"], r["step"]) for r in runs[1].rows()] == [("diverged", None, 4)] * 4
    assert all(r["step"] < 4 and "NaN" not in json.dumps(r) for r in runs[1].metrics())
    assert last_step(runs[1]) == 2
    assert "diverged at step 4" in capsys.readouterr().out
    train.run(*broken)  # nothing to do


def test_all_diverge(jobs: Jobs) -> None:
    words = ["trainer.steps=6", "optimizer.lr=1e20", "optimizer.warmup_steps=0", "trainer.clip_norm=null"]
    cfgs = jobs("runs", ["rf", "v_cos"], *words)
    train.run(*cfgs)
    assert [Run.open(run_folder(cfg)).state for cfg in cfgs] == ["diverged"] * 2


def test_interrupted_while_scoring_keeps_its_rows(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowzoo.metrics import fid

    cut, undisturbed = (jobs(runs, ["rf", "edm_rf"], *SHORT) for runs in ("cut", "undisturbed"))
    real, calls = fid.frechet_distance, []

    def dies(*args: Any) -> float:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(fid, "frechet_distance", dies)
        with pytest.raises(KeyboardInterrupt):
            train.run(*cut)
    assert sum(len(Run.open(run_folder(cfg)).rows()) for cfg in cut) == 5
    train.run(*cut[:1])  # alone or together, what is missing is made
    train.run(*cut)
    train.run(*undisturbed)
    assert_twins(cut, undisturbed)


def test_a_run_that_another_process_trains_is_left_out(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    cfgs = jobs("runs", ["rf", "v_cos"], "trainer.steps=2", "trainer.val_every=2", "evaluation.weights=[raw]")
    with Run.create(cfgs[0]).lock():
        train.run(*cfgs)
    assert [Run.open(run_folder(cfg)).state for cfg in cfgs] == ["queued", "done"]
    assert "is being trained by" in capsys.readouterr().out


def test_a_stacked_run_can_be_sampled(jobs: Jobs) -> None:
    from flowzoo.build import load
    from flowzoo.prompted import sample_prompts

    cfgs = jobs("runs", ["rf", "v_cos"], "trainer.steps=2", "trainer.val_every=2", "evaluation.weights=[raw]")
    train.run(*cfgs)
    images = sample_prompts(load(run_folder(cfgs[1])), ["a red circle"], n=2, steps=2)
    assert images.shape == (2, 3, 16, 16)
