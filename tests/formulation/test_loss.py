"""All nine of prediction x loss, and what they add to a formulation."""

import itertools
import math

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.testing import assert_close

from flowzoo.formulation import declared, limits, loss, names, schedule, target, timestep, weighting
from flowzoo.formulation.check import check
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.randomness import generator

SCHEDULES = [
    schedule.RF(),
    schedule.Cosine(),
    schedule.LDMLinear(),
    schedule.DDPMLinear(),
    schedule.EDM(-1.2, 0.6),
    schedule.EDMRF(),
    schedule.EDMCosine(),
]
NINE = ["x0", "eps", "velocity"]
TARGETS = {"x0": target.X0(), "eps": target.Eps(), "velocity": target.Velocity(), "v": target.V(), "F": target.F(0.7)}
LOSSES = {"x0": loss.OnX0, "eps": loss.OnEps, "velocity": loss.OnVelocity}
T = torch.linspace(0.02, 0.98, 64, dtype=torch.float64)
X0, EPS, ERROR = torch.randn(3, 64, dtype=torch.float64, generator=generator(0, 0, "x"))
ENDLESS = 1e300  # a clip that cuts nothing here

each_path = pytest.mark.parametrize("path", SCHEDULES, ids=lambda s: type(s).__name__)
each_prediction = pytest.mark.parametrize("prediction", TARGETS)
each_loss = pytest.mark.parametrize("measured", NINE)


def with_loss(path: schedule.Schedule, prediction: str, measured: str, clip: float | None = ENDLESS) -> Formulation:
    return Formulation(path, TARGETS[prediction], timestep.Uniform(), LOSSES[measured](clip))


@each_path
@each_prediction
@each_loss
def test_the_loss_is_the_error_after_both_are_converted(
    path: schedule.Schedule, prediction: str, measured: str
) -> None:
    c = with_loss(path, prediction, measured).at_t(T)
    z, y = c.z(X0, EPS), c.target(X0, EPS)
    x0_hat, eps_hat = c.decode(z, y + ERROR)
    there = {"x0": (x0_hat, X0), "eps": (eps_hat, EPS), "velocity": (c.velocity(x0_hat, eps_hat), c.velocity(X0, EPS))}
    hat, true = there[measured]
    assert_close(c.weight * ERROR**2, (hat - true) ** 2, rtol=1e-6, atol=1e-12)


@each_path
@each_prediction
@each_loss
def test_a_perfect_network_is_a_fixed_point(path: schedule.Schedule, prediction: str, measured: str) -> None:
    """Whatever the loss, its minimum is the mean of the target: here of y that is spread by `ERROR` evenly."""
    c = with_loss(path, prediction, measured, 100.0).at_t(T)
    y = c.target(X0, EPS)
    net = y.clone().requires_grad_()
    sides = [(c.weight * (net - (y + e)).square()).sum() for e in (ERROR, -ERROR)]
    (gradient,) = torch.autograd.grad(sides[0] + sides[1], net)
    assert_close(gradient, torch.zeros_like(y), rtol=0, atol=1e-9)
    assert (c.weight > 0).all()


@each_path
@each_loss
def test_in_the_predictions_own_space_the_weight_is_one(path: schedule.Schedule, measured: str) -> None:
    form = with_loss(path, measured, measured, None)
    u = torch.tensor([1e-9, 0.5, 1 - 1e-9], dtype=torch.float64)
    assert torch.equal(form.coefficients(u).weight, torch.ones_like(u))
    if form.sigma_start == math.inf:
        assert form.at_t(1.0).weight == 1


@each_path
@each_prediction
@each_loss
def test_a_clip_is_needed_where_the_mean_weight_is_infinite(
    path: schedule.Schedule, prediction: str, measured: str
) -> None:
    """By how the weight grows towards both ends: its mean over t is finite if t weight(t) goes to 0 there."""
    given = (path, TARGETS[prediction], timestep.Uniform())
    needed = limits.diverges(path, TARGETS[prediction], TARGETS[measured])
    c = Formulation(*given, LOSSES[measured](ENDLESS))
    near = torch.tensor([1e-8, 1e-10], dtype=torch.float64)
    u = torch.stack([near, 1 - near])
    growth = (c.coefficients(u).weight * near)[:, 1] / (c.coefficients(u).weight * near)[:, 0]
    assert bool((growth > 0.5).any()) is needed
    if needed:
        with pytest.raises(ValueError, match=r"path\.loss\.clip=null: .*infinite at uniform t; allowed: .* above 0"):
            Formulation(*given, LOSSES[measured]())
    else:
        Formulation(*given, LOSSES[measured]())


def test_a_clip_is_the_largest_weight() -> None:
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    free = with_loss(schedule.RF(), "eps", "x0").coefficients(u).weight
    clipped = with_loss(schedule.RF(), "eps", "x0", 7.0).coefficients(u).weight
    assert torch.equal(clipped, free.clamp(max=7.0))
    assert 0 < int((free > 7).sum()) < 99


@pytest.mark.parametrize("clip", [0, -1.0, math.inf, math.nan, "x"])
def test_a_clip_out_of_range_is_refused(clip: object) -> None:
    with pytest.raises(ValueError, match=r"path\.loss\.clip"):
        loss.OnX0(clip)  # type: ignore[arg-type]


def made(name: str) -> Formulation:
    config = names.parse(name)
    parts = [*(config["path"].get(key) for key in ("schedule", "target")), config["sampler"]]
    parts += [config["path"].get("loss"), config.get("weighting")]
    return Formulation(*(instantiate(part) if part else None for part in parts))


STACK = [
    *("rf", "rf/loss_x0", "rf/loss_eps", "x0/rf/loss_eps(clip=100.00)", "x0/rf/loss_eps(clip=7.50)", "x0/rf"),
    *("eps/rf/loss_velocity(clip=9.00)", "v/cos/min_snr(5.00)", "v/cos/min_snr(2.50)", "v/cos/soft_min_snr(5.00)"),
    *("rf/uniform(shift=3.00)", "rf/uniform(shift=0.25)", "rf/mode(1.29,shift=3.00)", "rf/cosmap(shift=2.00)"),
    *("edm(-1.20,1.20)/loss_eps", "edm(0.00,0.60)/min_snr(1.00)", "eps/linear/loss_x0", "rf/mode(1.29)"),
]


def test_a_stack_says_what_each_says() -> None:
    solo = [made(name) for name in STACK]
    stack = StackedFormulation(solo)
    for ask in ("coefficients", "at_t"):
        together = getattr(stack, ask)(T)
        for i, form in enumerate(solo):
            for field, value in vars(getattr(form, ask)(T)).items():
                assert_close(getattr(together, field)[i], value, rtol=5e-16, atol=0, msg=f"{STACK[i]} {field}")


def snr(c: Formulation) -> Tensor:
    record = c.at_t(T)
    return (record.a / record.b) ** 2


def test_min_snr_is_the_papers_for_each_prediction() -> None:
    """Hang et al. 2023, sec. 3.4: of x0, noise and v on a variance preserving path."""
    for gamma in (1.0, 5.0):
        weight = {}
        for prediction in ("x0", "eps", "v"):
            path = (schedule.Cosine(), TARGETS[prediction], timestep.Uniform())
            form = Formulation(*path, weighting=weighting.MinSNR(gamma))
            weight[prediction], ratio = form.at_t(T).weight, snr(form)
        least = ratio.clamp(max=gamma)
        assert_close(weight, {"x0": least, "eps": least / ratio, "v": least / (ratio + 1)}, rtol=1e-10, atol=0)


def test_soft_min_snr_is_the_papers() -> None:
    form = Formulation(
        schedule.RF(), target.X0(), timestep.Uniform(), weighting=weighting.SoftMinSNR(4.0)
    )  # Crowson et al. 2024: 4 SNR/(4 + SNR) on the error of x0
    assert_close(form.at_t(T).weight, 4 * snr(form) / (4 + snr(form)), rtol=1e-10, atol=0)


@each_path
@each_prediction
@pytest.mark.parametrize("kind", [weighting.MinSNR, weighting.SoftMinSNR])
def test_a_weighting_is_bounded_and_one_for_all_predictions(
    path: schedule.Schedule, prediction: str, kind: type[weighting.MinSNR]
) -> None:
    form = Formulation(path, TARGETS[prediction], timestep.Uniform(), weighting=kind(5.0))
    u = torch.tensor([1e-7, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-7], dtype=torch.float64)
    c = form.coefficients(u)
    assert (c.weight >= 0).all()
    assert c.weight.isfinite().all()
    noise = kind(5.0).of_noise(c.b / c.a)
    assert_close(c.weight * (c.determinant / c.a) ** 2, noise, rtol=1e-8, atol=0)
    assert torch.equal(c.t, Formulation(path, TARGETS[prediction], timestep.Uniform()).coefficients(u).t)


def test_a_weighting_of_a_loss_measured_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="a weighting is of the error of eps"):
        Formulation(
            schedule.RF(), target.Velocity(), timestep.Uniform(), loss.OnX0(), weighting.MinSNR(5.0)
        )  # which of the two would it weigh?


@pytest.mark.parametrize(("prediction", "measured"), itertools.product(NINE, NINE))
def test_names_of_the_nine(prediction: str, measured: str) -> None:
    config = names.parse("rf" if prediction == "velocity" else f"{prediction}/rf")
    own = next(part for part in declared.LOSSES.values() if part.word == measured)
    for clip in (None, 50.0):
        path = config["path"] | {"loss": {"_target_": own.target, "clip": clip}}
        if prediction == measured:
            assert names.variant_name(path, config["sampler"]) == names.variant_name(**config)
        elif clip is None and limits.diverges(schedule.RF(), TARGETS[prediction], TARGETS[measured]):
            with pytest.raises(ValueError, match=f"path/loss={measured} .* prediction of {prediction} on rf"):
                check(path, config["sampler"])
        else:
            name = names.variant_name(path, config["sampler"])
            assert name.endswith(f"/loss_{measured}" + ("" if clip is None else "(clip=50.00)"))
            again = names.parse(names.file_name(name))
            assert again == names.parse(name)
            assert names.variant_name(**again) == name
