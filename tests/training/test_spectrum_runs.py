"""Runs whose timestep law is measured: kept with the run, never measured again, and in a stack as alone."""

import json
from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from test_latent_runs import PCA, SHORT, interrupt_after_first_step, last

from flowzoo import build, train
from flowzoo.build import load
from flowzoo.formulation.mixture import LogisticMixture
from flowzoo.runs.grouping import alone
from flowzoo.runs.identity import run_folder, run_hash, run_variant
from flowzoo.runs.layout import DATA
from flowzoo.stacks import run_stacks

LAW = ["sampler=spectrum", *PCA, *SHORT]


def kept(cfg: DictConfig) -> dict:
    return dict(json.loads((run_folder(cfg) / DATA).read_text()))


def test_what_was_measured_stays_with_the_run(tiny: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halves = (tiny(*LAW, runs=runs) for runs in ("whole", "halves"))
    train.run(whole)
    interrupt_after_first_step(halves, monkeypatch)
    monkeypatch.setattr("flowzoo.build.latents_of_some", None)  # whoever measured again would fail
    train.run(halves)
    assert all(torch.equal(x, last(halves)[key]) for key, x in last(whole).items())
    assert run_folder(whole).name.startswith("rf_spectrum-s0-")
    law = load(run_folder(whole)).formulation.sampler.mixture
    assert law == LogisticMixture.read(kept(halves)["spectrum"])
    # 96 numbers of unit variance, less what the mean image explains
    assert 0 < law.mean < 2


def test_laws_in_a_stack_are_what_they_are_alone(tiny_jobs: Callable[..., list[DictConfig]]) -> None:
    variants = ["path=rf,v_cos,v_linear", "sampler=spectrum", "sampler.shift=1,3", *PCA, *SHORT]
    variants += ["trainer.precision=64-true"]
    for cfg in tiny_jobs(*variants, runs="alone"):
        train.run(cfg)
    plain = tiny_jobs("variant=edm_rf,rf_lognorm_0.00_1.00", *variants[3:], "trainer=stacked", runs="together")
    together = tiny_jobs(*variants, "trainer=stacked", runs="together")
    assert run_stacks([*plain, *together]) == 0
    assert len({json.dumps(kept(cfg)["spectrum"]) for cfg in together}) == 1
    assert all("spectrum" not in kept(cfg) for cfg in plain)
    for one, other in zip(tiny_jobs(*variants, runs="alone"), map(alone, together), strict=True):
        assert kept(one) == kept(other)
        for key, value in last(one).items():
            torch.testing.assert_close(value, last(other)[key], rtol=1e-9, atol=1e-12)


def test_a_law_has_one_name(tiny: Callable[..., DictConfig]) -> None:
    one, other = tiny("sampler=spectrum"), tiny("sampler=spectrum", "sampler.shift=1", "sampler.eigenvalues=data")
    assert run_hash(one) == run_hash(other)
    assert run_variant(tiny("sampler=spectrum", "path=v_cos", "sampler.shift=3")) == "v/cos/spectrum(shift=3.00)"
    assert len({run_hash(tiny(*words)) for words in (LAW, [*LAW, "sampler.shift=3"], ["sampler=uniform", *PCA])}) == 3


def test_the_spectrum_is_that_of_the_latents(tiny: Callable[..., DictConfig]) -> None:
    """A gain multiplies sigma: it moves the law and does not change its shape."""
    laws = [build.jobs_of([tiny(*LAW, f"autoencoder.gain={gain}")])[0].model.formulation.sampler for gain in (1, 4)]
    one, other = (law.mixture for law in laws)  # type: ignore[attr-defined]
    assert other.mean - one.mean == pytest.approx(torch.tensor(4.0).log().item(), abs=1e-6)
    assert other.deviation == pytest.approx(one.deviation, abs=1e-3)
