"""A run's life: to the end, interrupted, killed, diverged, done already."""

import json
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from flowzoo import judge, train
from flowzoo.build import trained_job
from flowzoo.metrics import fid
from flowzoo.runs.identity import run_folder
from flowzoo.runs.signals import Notice
from flowzoo.runs.store import Interrupted, Run
from flowzoo.sampling.generate import Generator
from flowzoo.tasks import formulation as task
from flowzoo.training.lifecycle import score_trained
from flowzoo.training.program import Program

STEPS = ["trainer.steps=10", "trainer.val_every=3", "trainer.checkpoint_every=5"]
Compose = Callable[..., DictConfig]


def checkpoint(cfg: DictConfig, name: str = "last") -> dict[str, Any]:
    return torch.load(run_folder(cfg) / "checkpoints" / f"{name}.ckpt", weights_only=True)


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def records(cfg: DictConfig) -> list[dict[str, Any]]:
    timing = ("images_per_s", "loader_wait")
    return [{k: v for k, v in r.items() if k not in timing} for r in Run.open(run_folder(cfg)).metrics()]


def scores(cfg: DictConfig) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in Run.open(run_folder(cfg)).rows()]


def assert_twins(one: DictConfig, other: DictConfig) -> None:
    for name in ("last", "best"):
        a, b = checkpoint(one, name), checkpoint(other, name)
        for part in ("state_dict", "ema", "global_step"):
            assert same(a[part], b[part]), (name, part)
    assert same(checkpoint(one)["optimizer"], checkpoint(other)["optimizer"])
    assert records(one) == records(other)
    assert scores(one) == scores(other)


@pytest.fixture
def undisturbed(tiny: Compose) -> DictConfig:
    cfg = tiny(*STEPS, runs="undisturbed")
    train.run(cfg)
    return cfg


def test_a_run_ends_with_rows_grid_density_and_status(undisturbed: DictConfig) -> None:
    run = Run.open(run_folder(undisturbed))
    assert run.state == "done"
    rows = run.rows()
    assert [(r["weights"], r["guidance"]) for r in rows] == [("ema", 2.0), ("ema", 1.0), ("raw", 2.0), ("raw", 1.0)]
    assert all(math.isfinite(r["fid"]) and math.isfinite(r["clip"]) and r["nfe"] == 2 for r in rows)
    assert len({r["protocol"] for r in rows}) == 1
    for name in ("density.csv", "samples/grid.png", "samples/prompts.txt", "extractor.json", "config.yaml"):
        assert (run.path / name).is_file(), name
    steps = [r["step"] for r in run.metrics() if "val_loss_ema" in r]
    assert steps == [3, 6, 9, 10]
    best = min((r for r in run.metrics() if "val_loss_ema" in r), key=lambda r: r["val_loss_ema"])
    assert checkpoint(undisturbed, "best")["global_step"] == best["step"] == rows[0]["step"]


def test_ten_steps_equal_five_and_five(undisturbed: DictConfig, tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = tiny(*STEPS, runs="interrupted")
    with monkeypatch.context() as patch:
        patch.setattr(Notice, "given", lambda self, trainer: trainer.global_step == 4)  # not a checkpoint's step
        with pytest.raises(Interrupted, match="step 4 of 10"):
            train.run(cfg)
    assert Run.open(run_folder(cfg)).state == "preempted"
    train.run(cfg)
    assert Run.open(run_folder(cfg)).status["attempt"] == 2
    assert_twins(undisturbed, cfg)


def test_killed_during_validation(undisturbed: DictConfig, tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = tiny(*STEPS, runs="killed")
    calls = []
    real = task.validation_loss

    def dies(*args: Any) -> dict[float, float]:
        calls.append(1)
        if len(calls) == 6:  # the EMA half of the validation at step 9, while the backbone holds the average
            raise SystemError("killed")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(task, "validation_loss", dies)
        with pytest.raises(SystemError):
            train.run(cfg)
    assert checkpoint(cfg)["global_step"] == 5
    train.run(cfg)
    assert_twins(undisturbed, cfg)


def test_validation_takes_smaller_pieces_where_memory_is_short(
    undisturbed: DictConfig, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(*STEPS, runs="short_of_memory")
    real = task.validation_loss
    sizes = []

    def short(backbone: Any, formulation: Any, batch: Any, size: int) -> torch.Tensor:
        sizes.append(size)
        if size > cfg.trainer.batch_size // 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(backbone, formulation, batch, size)

    with monkeypatch.context() as patch:
        patch.setattr(task, "validation_loss", short)
        train.run(cfg)
    n = cfg.trainer.batch_size
    assert sizes[:3] == [n, n // 2, n // 4]
    losses, same = (
        [record["val_loss_ema"] for record in records(one) if "val_loss_ema" in record] for one in (cfg, undisturbed)
    )
    assert losses == pytest.approx(same, rel=1e-5)


def test_the_same_command_again_says_done(undisturbed: DictConfig, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in run_folder(undisturbed).rglob("*") if p.is_file() and p.name != ".lock"}
    capsys.readouterr()
    train.run(undisturbed)
    assert "is done already; nothing to do (flowzoo.evaluate scores it" in " ".join(capsys.readouterr().out.split())
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_interrupted_while_scoring_keeps_its_rows(
    undisturbed: DictConfig, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(*STEPS, runs="scoring")
    real, calls = fid.frechet_distance, []

    def dies(*args: Any) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(fid, "frechet_distance", dies)
        with pytest.raises(KeyboardInterrupt):
            train.run(cfg)
    assert len(Run.open(run_folder(cfg)).rows()) == 2
    train.run(cfg)
    assert_twins(undisturbed, cfg)


def test_divergence_is_a_result(tiny: Compose) -> None:
    cfg = tiny(*STEPS, "optimizer.lr=1e20", "optimizer.warmup_steps=0", "trainer.clip_norm=null")
    train.run(cfg)
    run = Run.open(run_folder(cfg))
    assert run.state == "diverged"
    assert 1 <= run.status["step"] <= 10
    assert [(r["status"], r["fid"], r["clip"]) for r in run.rows()] == [("diverged", None, None)] * 4
    for record in run.metrics():
        assert "NaN" not in json.dumps(record)


def test_seed_zero_is_legal_and_seeds_differ(undisturbed: DictConfig, tiny: Compose) -> None:
    other = tiny(*STEPS, "seed=1")
    assert undisturbed.seed == 0
    train.run(other)
    assert not same(checkpoint(undisturbed)["state_dict"], checkpoint(other)["state_dict"])


def test_variants_share_images_text_and_initial_weights(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws never depend on the formulation."""
    seen: list[list[torch.Tensor]] = []
    real = Program.step

    def step(self: Program, batch: Any, number: int) -> None:
        if number == 0:
            seen.append([self.rows.clone()])
        (one,) = batch
        seen[-1] += [one.images.clone(), *(x.clone() for x in one.text.tokens)]
        real(self, batch, number)

    monkeypatch.setattr(Program, "step", step)
    for path in ("rf", "v_cos", "edm"):
        train.run(tiny("trainer.steps=2", "trainer.val_every=2", "trainer.checkpoint_every=2", f"path={path}"))
    rf, v_cos, edm = seen
    assert same(rf, v_cos)
    assert same(rf, edm)


def test_checkpoints_hold_the_backbone_and_nothing_else(undisturbed: DictConfig) -> None:
    names = checkpoint(undisturbed)["state_dict"].keys()
    assert all(name.startswith("backbone.") and "_orig_mod" not in name for name in names)
    assert checkpoint(undisturbed, "best").keys() == {"state_dict", "ema", "global_step", "val_loss_ema"}


def test_scores_of_an_earlier_checkpoint_are_replaced(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = tiny(*STEPS)
    with monkeypatch.context() as patch:
        patch.setattr(Notice, "given", lambda self, trainer: trainer.global_step == 4)
        with pytest.raises(Interrupted):
            train.run(cfg)
    run = Run.open(run_folder(cfg))
    score_trained(trained_job(cfg, run.path), "best")
    assert {row["step"] for row in run.rows()} == {3}
    train.run(cfg)
    assert {row["step"] for row in run.rows()} == {checkpoint(cfg, "best")["global_step"]}
    assert len(run.rows()) == 4


def test_another_solver_leaves_the_picture_that_reports_compare(undisturbed: DictConfig, tiny: Compose) -> None:
    run = Run.open(run_folder(undisturbed))
    grid, before = (run.path / "samples" / "grid.png").read_bytes(), len(run.rows())
    score_trained(trained_job(tiny(*STEPS, "solver=heun", runs="undisturbed"), run.path), "best")
    assert len(run.rows()) == 2 * before
    assert (run.path / "samples" / "grid.png").read_bytes() == grid
    assert len(list((run.path / "samples").glob("*heun_common*.png"))) == before


def test_few_samples_are_said_once(undisturbed: DictConfig, capsys: pytest.CaptureFixture[str]) -> None:
    judge._say.cache_clear()
    for _ in range(2):
        score_trained(trained_job(undisturbed, run_folder(undisturbed)), "best")
    assert capsys.readouterr().err.count("few for FID") == 1


def test_samples_that_are_not_finite_get_no_score(undisturbed: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Generator.__call__

    def overflows(self: Generator, *args: Any) -> Any:
        made = real(self, *args)
        made.latents[..., 3, 0, 0, 0] = math.nan
        return made

    monkeypatch.setattr(Generator, "__call__", overflows)
    run = Run.open(run_folder(undisturbed))
    run.write_json("extractor.json", {})
    (run.path / "results.csv").unlink()
    score_trained(trained_job(undisturbed, run.path), "best")
    assert all(not math.isfinite(row["fid"]) and not math.isfinite(row["clip"]) for row in run.rows())


def test_too_few_samples_for_fid_are_said_before_training(tiny: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = tiny(*STEPS, "evaluation.samples=10")
    judge._say.cache_clear()
    train.run(cfg)
    assert "evaluation.samples=10 against 70 held-out images" in " ".join(capsys.readouterr().err.split())
    rows = Run.open(run_folder(cfg)).rows()
    assert [row["fid"] for row in rows] == [None] * 4
    assert all(math.isfinite(row["clip"]) for row in rows)


def test_sigterm_while_scoring_says_how_it_stands(
    undisturbed: DictConfig, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny(*STEPS, runs="terminated")
    real = fid.frechet_distance

    def told_to_stop(*args: Any) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(fid, "frechet_distance", told_to_stop)
        with pytest.raises(Interrupted, match="stopped"):
            train.run(cfg)
    assert Run.open(run_folder(cfg)).state == "preempted"
    train.run(cfg)
    assert_twins(undisturbed, cfg)
