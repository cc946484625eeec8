import math
from dataclasses import replace

import pytest
import torch
from hydra.utils import instantiate
from torch.testing import assert_close

from flowzoo.formulation import declared, names
from flowzoo.formulation.check import check
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.mixture import LogisticMixture
from flowzoo.formulation.part import MODE_S_MAX, REAL
from flowzoo.formulation.schedule import EDMRF, RF, Cosine, DDPMLinear, LDMLinear, Schedule
from flowzoo.formulation.target import F, V
from flowzoo.formulation.timestep import CosMap, LogitNormal, Mode, Spectrum, TimestepSampler, Uniform

MIXTURE = LogisticMixture.of([60.0, 4.0, 0.2])
SAMPLERS = [
    Uniform(),
    CosMap(),
    *(LogitNormal(m, s) for m, s in ((0.0, 1.0), (-1.0, 0.2), (1.0, 2.2))),
    *(Mode(s) for s in (-1.0, -0.08, 0.0, 1.29, 1.75, MODE_S_MAX)),
    Spectrum(1.0),
    Spectrum(MIXTURE),
]
every = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__}{list(vars(s).values())}")
U = torch.linspace(0.0103, 0.9897, 301, dtype=torch.float64)


@every
def test_density_is_the_inverse_slope_of_the_quantile(sampler: TimestepSampler) -> None:
    # at mode's largest s the slope vanishes at u = 1/2, where no inversion can be exact
    u = U[(U - 0.5).abs() > 0.01]
    t, slope = torch.func.jvp(sampler.quantile, (u,), (torch.ones_like(u),))
    assert_close(sampler.density(t) * slope, torch.ones_like(u), rtol=1e-7, atol=0)


@every
def test_quantile_rises_within_the_unit_interval(sampler: TimestepSampler) -> None:
    k = torch.tensor([0, 1, 2, 2**22, 2**24 - 2, 2**24 - 1], dtype=torch.float64)
    u = torch.cat([(k + 0.5) / 2**24, U]).sort().values
    t = sampler.quantile(u)
    assert (t.diff() > 0).all()
    assert t.min() > 0
    assert t.max() < 1


@every
def test_density_integrates_to_the_law(sampler: TimestepSampler) -> None:
    low, high = sampler.quantile(torch.tensor([0.1, 0.45], dtype=torch.float64))
    t = low + (high - low) * (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    assert sampler.density(t).mean().item() * (high - low).item() == pytest.approx(0.35, abs=1e-6)


def test_mode_stops_rising_just_beyond_its_limits() -> None:
    assert Mode(MODE_S_MAX).quantile(U).diff().min() > 0
    beyond = Mode(0.0)
    beyond.s = MODE_S_MAX + 0.05
    assert beyond.quantile(U).diff().min() < 0


def test_mode_zero_is_uniform() -> None:
    assert_close(Mode(0.0).quantile(U), U, rtol=0, atol=0)
    assert_close(Mode(0.0).density(U), torch.ones_like(U))


@pytest.mark.parametrize("s", [-1.0, 0.83, 1.75])
def test_mode_is_the_law_of_equation_20(s: float) -> None:
    # paper eq. 20 falls in u: its draws at 1 - u are ours at u
    f = 1 - (1 - U) - s * (torch.cos(math.pi / 2 * (1 - U)) ** 2 - 1 + (1 - U))
    assert_close(Mode(s).quantile(U), f)


def test_the_signs_of_m_and_s() -> None:
    middle = torch.tensor([0.5], dtype=torch.float64)
    ends = torch.tensor([0.01, 0.99], dtype=torch.float64)
    assert LogitNormal(-0.5, 1.0).quantile(middle) < 0.5 < LogitNormal(0.5, 1.0).quantile(middle)
    assert (Mode(1.29).density(middle) > 1).all()
    assert (Mode(-0.54).density(ends) > 1).all()


def test_cosmap_gives_rf_the_log_snr_of_cosine() -> None:
    assert_close(RF().at_t(CosMap().quantile(U)).sigma, Cosine().at_t(U).sigma)


def test_lognorm_median_and_width() -> None:
    u = torch.special.ndtr(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    assert_close(torch.logit(LogitNormal(0.5, 0.6).quantile(u)), torch.tensor([-0.1, 0.5, 1.1], dtype=torch.float64))


@pytest.mark.parametrize("s", [0, 0.0, -0.0])
def test_a_law_that_names_take_for_a_simpler_one_is_that_one_to_the_last_bit(s: float) -> None:
    given = {"_target_": "flowzoo.formulation.timestep.Mode", "s": s}
    simpler = instantiate(declared.resolved(given))
    assert isinstance(simpler, Uniform)
    assert torch.equal(instantiate(given).quantile(U), simpler.quantile(U))


def test_laws_resolve_until_none_is_simpler(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shift of alpha will: one of lognorm(m, s) is lognorm(m + ln alpha, s)."""
    shifted = replace(
        declared.SAMPLERS["LogitNormal"],
        word="shifted",
        target="flowzoo.formulation.timestep.Shifted",
        ranges=dict.fromkeys(("m", "s", "alpha"), REAL),
        defaults={},
        equals=lambda m, s, alpha: ("lognorm", m + math.log(alpha), s),
    )
    monkeypatch.setitem(declared.SAMPLERS, "Shifted", shifted)
    law = {"_target_": shifted.target, "m": 0.5, "s": 1, "alpha": 3}
    assert declared.resolved(law) == {**names.TABLE["rf/lognorm(0.00,1.00)"]["sampler"], "m": 0.5 + math.log(3), "s": 1}
    assert names.variant_name(names.TABLE["rf"]["path"], law) == f"rf/lognorm({0.5 + math.log(3)!r},1.00)"
    for other in ({**law, "alpha": "3"}, {**law, "alpha": True}, {"_target_": shifted.target}):
        assert declared.resolved(other) == other  # `check` refuses them


SHIFTED = [
    *(Uniform(alpha) for alpha in (0.3, 3.0)),
    *(Mode(s, alpha) for s in (-1.0, 0.83, 1.75) for alpha in (0.3, 3.0)),
    *(CosMap(alpha) for alpha in (0.3, 3.0)),
    *(LogitNormal(0.5, 0.6, alpha) for alpha in (0.3, 3.0)),
    *(Spectrum(MIXTURE, alpha) for alpha in (0.3, 3.0)),
]
every_shifted = pytest.mark.parametrize("sampler", SHIFTED, ids=lambda s: f"{type(s).__name__}{list(vars(s).values())}")


@every_shifted
def test_density_after_a_shift_is_the_inverse_slope_of_the_quantile(sampler: TimestepSampler) -> None:
    t, slope = torch.func.jvp(sampler.quantile, (U,), (torch.ones_like(U),))
    assert_close(sampler.density(t) * slope, torch.ones_like(U), rtol=1e-7, atol=0)


@pytest.mark.parametrize("alpha", [0.3, 3.0])
def test_a_shift_lowers_the_log_snr_of_rf_by_twice_its_logarithm(alpha: float) -> None:
    pairs: list[tuple[TimestepSampler, TimestepSampler]]
    pairs = [(Uniform(), Uniform(alpha)), (Mode(0.83), Mode(0.83, alpha)), (CosMap(), CosMap(alpha))]
    pairs += [(LogitNormal(0.5, 0.6), LogitNormal(0.5, 0.6, alpha)), (Spectrum(MIXTURE), Spectrum(MIXTURE, alpha))]
    for plain, moved in pairs:
        before, after = (RF().at_t(law.quantile(U)).sigma for law in (plain, moved))
        assert_close(-2 * after.log(), -2 * before.log() - 2 * math.log(alpha))
        # paper eq. 23, as printed
        t = plain.quantile(U)
        assert_close(moved.quantile(U), alpha * t / (1 + (alpha - 1) * t))


def test_no_shift_is_no_change_to_the_last_bit() -> None:
    for law in (Uniform(), Mode(0.83), CosMap()):
        assert torch.equal(law.quantile(U), law.law(U))
        assert torch.equal(law.density(U), law.law_density(U))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
def test_shifted_laws_resolve_to_the_simplest_of_the_same_bits(alpha: float) -> None:
    module = "flowzoo.formulation.timestep."
    lognorm = {"_target_": module + "LogitNormal", "m": 0.5, "s": 0.6}
    for given, expected in [
        ({**lognorm, "shift": alpha}, {**lognorm, "m": 0.5 + math.log(alpha)}),
        ({"_target_": module + "Mode", "s": 0.0, "shift": alpha}, {"_target_": module + "Uniform", "shift": alpha}),
    ]:
        simple = declared.resolved(given)
        assert simple == {key: value for key, value in expected.items() if (key, value) != ("shift", 1.0)}
        assert torch.equal(instantiate(given).quantile(U), instantiate(simple).quantile(U))
    assert names.variant_name(names.TABLE["rf"]["path"], {**lognorm, "shift": 1}) == "rf/lognorm(0.50,0.60)"


@pytest.mark.parametrize("shift", [0, -1.0, math.inf, math.nan, "3", True])
def test_a_shift_out_of_range_is_refused(shift: object) -> None:
    kinds = [("Uniform", {}), ("LogitNormal", {"m": 0.0, "s": 1.0}), ("Mode", {"s": 0.5}), ("CosMap", {})]
    for word, values in [*kinds, ("Spectrum", {"eigenvalues": "data"})]:
        law = {"_target_": f"flowzoo.formulation.timestep.{word}", **values, "shift": shift}
        with pytest.raises(ValueError, match=r"sampler\.shift = "):
            check(names.TABLE["rf"]["path"], law)


def test_a_path_that_is_its_law_takes_no_shift() -> None:
    law = {"_target_": "flowzoo.formulation.timestep.Uniform", "shift": 3.0}
    with pytest.raises(ValueError, match=r"edm takes the uniform sampler only, not uniform\(shift=3\.00\)"):
        check(names.TABLE["edm(0.00,0.60)"]["path"], law)
    with pytest.raises(ValueError, match="takes the uniform sampler only"):
        Formulation(EDMRF(), F(0.5), Uniform(3.0))


PATHS = [RF(), Cosine(), LDMLinear(), DDPMLinear()]
every_path = pytest.mark.parametrize("schedule", PATHS, ids=lambda one: one.word)


@every_path
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_a_spectrum_is_one_law_of_sigma_on_every_path(schedule: Schedule, alpha: float) -> None:
    """Less what lies above the highest level of the path, 14.6 on latent diffusion's."""
    law = Spectrum(MIXTURE, alpha)
    below = MIXTURE.cdf(torch.tensor(schedule.sigma_start / alpha, dtype=torch.float64).log())
    assert (below < 1) == (schedule.sigma_start < math.inf)
    drawn = schedule.at_t(law.quantile_on(schedule, U)).sigma
    assert_close(MIXTURE.cdf(torch.log(drawn / alpha)) / below, U, rtol=1e-7, atol=0)


@every_path
def test_a_spectrums_density_on_a_path_is_the_inverse_slope(schedule: Schedule) -> None:
    law = Spectrum(MIXTURE, 2.0)
    t, step = law.quantile_on(schedule, U), 1e-6
    slope = (law.quantile_on(schedule, U + step) - law.quantile_on(schedule, U - step)) / (2 * step)
    assert_close(law.density_on(schedule, t) * slope, torch.ones_like(U), rtol=1e-5, atol=0)


def test_other_laws_are_the_same_on_every_path() -> None:
    for law in (Uniform(3.0), LogitNormal(0.5, 0.6), Mode(0.83)):
        assert torch.equal(law.quantile_on(LDMLinear(), U), law.quantile(U))
        assert torch.equal(law.density_on(LDMLinear(), U), law.density(U))


def test_one_eigenvalue_is_a_logistic_law_of_half_the_width() -> None:
    t = Spectrum(4.0).quantile(U)
    assert_close(torch.logit(t), math.log(4) / 2 + torch.logit(U) / 2)


def test_a_formulation_draws_a_spectrum_on_its_own_path() -> None:
    law = Spectrum(MIXTURE)
    levels = LDMLinear()
    record = Formulation(levels, V(), law).coefficients(U)
    assert_close(record.t, levels.training_time(law.quantile_on(levels, U)))
    assert_close(Formulation(levels, V(), law).density(U), law.density_on(levels, U))


@pytest.mark.parametrize("bad", [0, -1.0, math.inf, "measured", True])
def test_eigenvalues_out_of_range_are_refused(bad: object) -> None:
    law = {"_target_": "flowzoo.formulation.timestep.Spectrum", "eigenvalues": bad}
    with pytest.raises(ValueError, match=r"sampler\.eigenvalues = "):
        check(names.TABLE["rf"]["path"], law)


def test_a_path_that_is_its_law_takes_no_spectrum() -> None:
    law = {"_target_": "flowzoo.formulation.timestep.Spectrum", "eigenvalues": "data"}
    with pytest.raises(ValueError, match="edm takes the uniform sampler only, not spectrum: its timestep law is part"):
        check(names.TABLE["edm(0.00,0.60)"]["path"], law)
    with pytest.raises(ValueError, match="takes the uniform sampler only"):
        Formulation(EDMRF(), F(0.5), Spectrum(1.0))
