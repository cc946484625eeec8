import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from flowzoo.formulation.schedule import EDM, EDMRF, RF, Cosine, DDPMLinear, EDMCosine, LDMLinear, Schedule

SCHEDULES = [RF(), Cosine(), LDMLinear(), DDPMLinear(), EDM(-1.2, 0.6), EDM(1.2, 1.8), EDMRF(), EDMCosine()]
VARIANCE_PRESERVING = [Cosine(), LDMLinear(), DDPMLinear()]
every = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
T = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)


def discrete_log_abar(schedule: Schedule) -> np.ndarray:
    s = np.arange(1000)
    if isinstance(schedule, LDMLinear):
        beta = (math.sqrt(0.00085) + s / 999 * (math.sqrt(0.012) - math.sqrt(0.00085))) ** 2
    else:
        beta = 1e-4 + s / 999 * (0.02 - 1e-4)
    return np.cumsum(np.log1p(-beta))


@every
@pytest.mark.parametrize("which", ["a", "b"])
def test_derivatives_against_autograd(schedule: Schedule, which: str) -> None:
    def value(t: Tensor) -> Tensor:
        return getattr(schedule.at_t(t), which)

    slope = torch.func.jvp(value, (T,), (torch.ones_like(T),))[1]
    assert_close(getattr(schedule.at_t(T), "d" + which), slope, rtol=1e-8, atol=1e-9)


@every
def test_sigma_leads_back_to_the_same_record(schedule: Schedule) -> None:
    there = schedule.at_t(T)
    for field, expected in schedule.at_sigma(there.sigma)._asdict().items():
        assert_close(expected, getattr(there, field), rtol=1e-8, atol=1e-12)


@every
def test_sigma_rises_and_the_ends_are_exact(schedule: Schedule) -> None:
    assert (schedule.at_t(T).sigma.diff() > 0).all()
    data = schedule.at_sigma(torch.zeros(1, dtype=torch.float64))
    assert (data.a.item(), data.b.item()) == (1.0, 0.0)
    assert data.t.item() == pytest.approx(0, abs=1e-30)
    assert not torch.isnan(torch.stack(data)).any()
    if math.isinf(schedule.sigma_start):
        for noise in (
            schedule.at_t(torch.ones(1, dtype=torch.float64)),
            schedule.at_sigma(torch.full((1,), math.inf, dtype=torch.float64)),
        ):
            assert (noise.t.item(), noise.a.item(), noise.b.item()) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("schedule", VARIANCE_PRESERVING, ids=lambda s: type(s).__name__)
def test_variance_is_preserved(schedule: Schedule) -> None:
    state = schedule.at_t(T)
    assert_close(state.a**2 + state.b**2, torch.ones_like(T))


@pytest.mark.parametrize("sigma", [0.0, 1e-12, 0.002, 80.0, 1e6, math.inf])
def test_edm_holds_levels_that_t_cannot(sigma: float) -> None:
    state = EDM(-1.2, 0.6).at_sigma(torch.tensor(sigma, dtype=torch.float64))
    assert (state.a.item(), state.b.item(), state.da.item()) == (1.0, sigma, 0.0)
    assert not torch.isnan(torch.stack(state)).any()


def test_edm_in_its_far_tails() -> None:
    n = torch.tensor([-9.0, -5.0, 5.0], dtype=torch.float64)
    state = EDM(-1.2, 0.6).at_sigma(torch.exp(-1.2 + 0.6 * n))
    assert_close(
        state.t, torch.tensor([1.1285884059538324e-19, 2.866515718791933e-07, 1 - 2.866515718791933e-07]).double()
    )
    # d sigma/dt = sigma P_s / phi(n)
    phi = torch.exp(-(n**2) / 2) / math.sqrt(2 * math.pi)
    assert_close(state.db, state.b * 0.6 / phi, rtol=1e-10, atol=0)


@pytest.mark.parametrize("schedule", [LDMLinear(), DDPMLinear()], ids=lambda s: type(s).__name__)
def test_continued_product_is_exact_at_the_levels(schedule: LDMLinear | DDPMLinear) -> None:
    n = torch.arange(1, 1001, dtype=torch.float64)
    assert_close(schedule.log_abar(n), torch.from_numpy(discrete_log_abar(schedule)), rtol=1e-11, atol=0)
    assert schedule.log_abar(torch.zeros(1, dtype=torch.float64)).item() == 0


def test_ldm_linear_is_not_pure_noise_at_the_end() -> None:
    schedule = LDMLinear()
    end = schedule.at_t(torch.ones(1, dtype=torch.float64))
    assert end.a.item() == pytest.approx(0.068, abs=5e-4)
    assert schedule.sigma_start == pytest.approx(14.6, abs=0.05)
    with pytest.raises(ValueError, match=r"highest level, 14\.6"):
        schedule.at_sigma(torch.tensor(20.0, dtype=torch.float64))


def test_training_rounds_up_to_levels_where_there_are_levels() -> None:
    t = torch.tensor([1e-9, 0.0005, 0.25, 0.2501, 1.0], dtype=torch.float64)
    assert_close(LDMLinear().training_time(t), torch.tensor([0.001, 0.001, 0.25, 0.251, 1.0], dtype=torch.float64))
    assert_close(RF().training_time(t), t)


@every
def test_labels_are_distinct_and_within_0_to_1000(schedule: Schedule) -> None:
    sigma = torch.logspace(math.log10(0.002), math.log10(min(80, schedule.sigma_start)), 50, dtype=torch.float64)
    label = schedule.label(schedule.at_sigma(sigma)).float()
    assert (label.diff() > 0).all()
    assert label.min() >= -1e-3
    assert label.max() <= 1000.001


@pytest.mark.parametrize(("edm", "twin"), [(EDMRF(), RF()), (EDMCosine(), Cosine())])
def test_edm_twins_share_the_law_of_the_log_snr(edm: Schedule, twin: Schedule) -> None:
    assert_close(edm.at_t(T).sigma, twin.at_t(T).sigma)


def test_labels_of_the_edm_family_span_its_levels() -> None:
    schedule = EDM(-1.2, 1.2)
    sigma = torch.tensor([0.002, 0.4, 80.0], dtype=torch.float64)
    assert_close(schedule.label(schedule.at_sigma(sigma)), torch.tensor([0.0, 500.0, 1000.0], dtype=torch.float64))
