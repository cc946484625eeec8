"""A stack of formulations says of each variant what the variant says of itself."""

from dataclasses import fields

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.testing import assert_close

from flowzoo.formulation.formulation import Coefficients, Formulation
from flowzoo.formulation.mixture import LogisticMixture
from flowzoo.formulation.names import TABLE, parse
from flowzoo.formulation.schedule import RF, LDMLinear
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.formulation.target import Velocity
from flowzoo.formulation.timestep import Spectrum
from flowzoo.randomness import generator, uniform


def build(name: str) -> Formulation:
    config = parse(name)
    path = config["path"]
    return Formulation(instantiate(path["schedule"]), instantiate(path["target"]), instantiate(config["sampler"]))


SOLO = [build(name) for name in TABLE]
STACK = StackedFormulation(SOLO)
U = uniform((1000,), generator(0, 0, "u"))


def assert_equal(stacked: Coefficients, solo: list[Coefficients]) -> None:
    """To the last bit but two: vectorised elementary functions may round the rest of an array differently."""
    for field in fields(Coefficients):
        expected = torch.stack([getattr(c, field.name) for c in solo])
        assert_close(getattr(stacked, field.name), expected, rtol=5e-16, atol=0, equal_nan=True, msg=field.name)


def test_all_61_at_once() -> None:
    assert len(STACK) == 61
    assert_equal(STACK.coefficients(U), [f.coefficients(U) for f in SOLO])
    assert_equal(STACK.at_t(U), [f.at_t(U) for f in SOLO])


def test_draws_of_ones_own() -> None:
    u = uniform((61, 50), generator(0, 1, "u"))
    assert_equal(STACK.coefficients(u), [f.coefficients(x) for f, x in zip(SOLO, u, strict=True)])


def test_a_block_of_steps_equals_step_by_step() -> None:
    blocks = U.reshape(4, 250)
    whole = STACK.coefficients(U)
    for i, u in enumerate(blocks):
        piece = STACK.coefficients(u)
        for field in fields(Coefficients):
            part: Tensor = getattr(whole, field.name).reshape(61, 4, 250)[:, i]
            assert_close(getattr(piece, field.name), part, rtol=5e-16, atol=0)


def test_levels_of_ones_own() -> None:
    levels = torch.stack([torch.tensor([f.sigma_start, 1.0, 0.1, 0.0], dtype=torch.float64) for f in SOLO])
    assert_equal(STACK.at_sigma(levels), [f.at_sigma(x) for f, x in zip(SOLO, levels, strict=True)])
    assert STACK.sigma_start.tolist() == [f.sigma_start for f in SOLO]


def test_classes_share_their_computation() -> None:
    """eps and v on linear and cosine, rf with its four laws, and EDM's three paths."""
    assert len(STACK._members) == 11


def test_parameters_that_are_no_real_numbers_are_kept_apart() -> None:
    names = ["rf/lognorm(0.00,1.00)", "edm(0.00,0.60)", "rf/lognorm(0.50,1.00)", "v/edm_cos"]
    solo = [build(name) for name in names]
    solo[0].sampler.m = 0  # type: ignore[attr-defined]
    assert_equal(StackedFormulation(solo).coefficients(U), [f.coefficients(U) for f in solo])


def test_spectra_that_differ_are_kept_apart_and_shifts_are_stacked() -> None:
    one, other = LogisticMixture.of([60.0, 4.0, 0.2]), LogisticMixture.of([60.0, 4.0, 0.3])
    solo = [
        Formulation(schedule(), Velocity(), Spectrum(mixture, shift))
        for schedule in (RF, LDMLinear)
        for mixture in (one, other)
        for shift in (1.0, 3.0)
    ]
    stack = StackedFormulation(solo)
    assert len(stack._members) == 4
    together = stack.coefficients(U)
    for i, alone in enumerate(f.coefficients(U) for f in solo):
        for field in fields(Coefficients):  # a = 1 - t loses what rounding t near 1 costs
            assert_close(getattr(together, field.name)[i], getattr(alone, field.name), rtol=1e-12, atol=0)


def test_the_order_of_variants_is_kept() -> None:
    shuffled = torch.randperm(61, generator=generator(0, 0, "shuffle")).tolist()
    stack = StackedFormulation([SOLO[i] for i in shuffled])
    assert_equal(stack.coefficients(U), [SOLO[i].coefficients(U) for i in shuffled])


def test_a_stack_of_one() -> None:
    assert StackedFormulation([build("rf")]).coefficients(U).t.shape == (1, 1000)


@pytest.mark.parametrize("shape", [(3, 10), (62, 10)])
def test_rows_must_be_as_many_as_variants(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="rows"):
        STACK.coefficients(torch.full(shape, 0.5, dtype=torch.float64))
