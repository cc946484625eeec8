"""Stacks hold runs that differ in formulation, seed, rate and decay alone."""

import pytest
from omegaconf import DictConfig

from flowzoo.runs.config import check_jobs, compose_jobs, config_loader
from flowzoo.runs.grouping import alone, cut, dealt, grouped, is_stacked, split
from flowzoo.runs.identity import run_folder, run_hash, run_variant


def jobs(*overrides: str) -> list[DictConfig]:
    with config_loader() as loader:
        return compose_jobs(loader, "train", overrides, multirun=True)


def test_variants_seeds_rates_and_decays_share_a_stack() -> None:
    cfgs = [
        *jobs("variant=rf,edm_0.00_0.60,v_linear,rf_mode_1.29", "seed=0,1"),
        *jobs("path=edm", "path.schedule.P_m=0.3", "optimizer.lr=1e-3,2e-3", "optimizer.weight_decay=0.1"),
    ]
    assert grouped(cfgs) == [cfgs]


@pytest.mark.parametrize(
    "word", ["backbone=dit", "data.source.image_size=16", "trainer.clip_norm=2", "ema.every=7", "optimizer.eps=1e-6"]
)
def test_anything_else_makes_another_stack(word: str) -> None:
    ones, others = jobs("variant=rf,v_cos"), jobs("variant=rf,v_cos", word)
    assert grouped([ones[0], others[0], ones[1], others[1]]) == [ones, others]


def test_loggers_that_name_their_run_do_not_part_runs() -> None:
    assert len(grouped(jobs("variant=rf,v_cos", "logger=tensorboard"))) == 1
    assert len(grouped([*jobs("variant=rf"), *jobs("variant=v_cos", "logger=tensorboard")])) == 2


def test_a_run_is_the_same_run_alone_or_stacked() -> None:
    (solo,), (stacked,) = jobs("variant=rf"), jobs("variant=rf", "trainer=stacked", "stack.size=3")
    assert is_stacked(stacked)
    assert not is_stacked(solo)
    assert run_hash(solo) == run_hash(stacked)
    assert run_folder(solo) == run_folder(stacked)
    assert alone(stacked) == solo
    assert is_stacked(stacked)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trainer.devices=2", "stack.processes=2"], "stack.processes=2 with trainer.devices=2"),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp: allowed is auto, ddp, sharded"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed"),
        (["stack.size=0"], "stack.size=0: allowed is auto or an integer"),
        (["stack.processes=many"], "stack.processes=many"),
    ],
)
def test_what_a_stack_cannot_do_is_refused(words: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check_jobs(jobs("variant=rf", "trainer=stacked", *words))


def test_one_engine_a_command() -> None:
    with pytest.raises(ValueError, match="trainer=solo and trainer=stacked"):
        check_jobs([*jobs("variant=rf"), *jobs("variant=v_cos", "trainer=stacked")])


@pytest.mark.parametrize(
    ("n", "limit", "sizes"), [(61, 61, [61]), (61, 60, [31, 30]), (7, 3, [3, 2, 2]), (1, 5, [1]), (4, 1, [1] * 4)]
)
def test_stacks_are_few_and_equal(n: int, limit: int, sizes: list[int]) -> None:
    assert split(n, limit) == sizes


def test_pieces_keep_the_order() -> None:
    cfgs = jobs("variant=rf,v_cos,eps_cos")
    assert [[run_variant(c) for c in piece] for piece in cut(cfgs, [2, 1])] == [["rf", "v/cos"], ["eps/cos"]]


def test_runs_are_dealt_evenly_and_groups_kept_together() -> None:
    def shares(cfgs: list[DictConfig], parts: int) -> list[list[int]]:
        return [[len(group) for group in grouped(share)] for share in dealt(cfgs, parts)]

    kinds = jobs("variant=rf,v_cos", "backbone=dit,crossdit,mmdit")
    assert shares(kinds, 1) == [[2, 2, 2]]
    assert shares(kinds, 2) == [[2, 1], [1, 2]]
    assert shares(kinds, 3) == [[2], [2], [2]]
    assert shares(kinds, 6) == [[1]] * 6
    assert shares(jobs("variant=rf", "backbone=dit,crossdit,mmdit"), 2) == [[1, 1], [1]]
    assert shares(jobs("variant=rf", "seed=range(61)"), 4) == [[16], [15], [15], [15]]
    assert {run_folder(cfg) for share in dealt(kinds, 4) for cfg in share} == set(map(run_folder, kinds))
