import math
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.testing import assert_close

from flowzoo.formulation import schedule, target, timestep
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.names import TABLE
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.randomness import generator, uniform

SCHEDULES = [
    schedule.RF(),
    schedule.Cosine(),
    schedule.LDMLinear(),
    schedule.DDPMLinear(),
    schedule.EDM(-1.2, 1.2),
    schedule.EDMRF(),
    schedule.EDMCosine(),
]
TARGETS = [target.Velocity(), target.Eps(), target.V(), target.X0(), target.F(0.5), target.F(1.3)]
U = uniform((64,), generator(0, 0, "test"))


def build(config: dict[str, Any]) -> Formulation:
    path, sampler = config["path"], config["sampler"]
    return Formulation(instantiate(path["schedule"]), instantiate(path["target"]), instantiate(sampler))


@pytest.mark.parametrize("goal", TARGETS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("path", SCHEDULES, ids=lambda s: type(s).__name__)
def test_decode_inverts_state_and_target(path: schedule.Schedule, goal: target.Target) -> None:
    form = Formulation(path, goal, timestep.Uniform())
    c = form.at_t(torch.linspace(0.02, 0.98, 64, dtype=torch.float64))
    x0, eps = torch.randn(2, 64, dtype=torch.float64, generator=generator(0, 0, "x"))
    for got, expected in zip(c.decode(c.z(x0, eps), c.target(x0, eps)), (x0, eps), strict=True):
        assert_close(got, expected, rtol=1e-9, atol=1e-9)
    # at the highest level that sampling starts from, and the lowest above 0
    for sigma in (form.sigma_start, 0.002):
        node = form.at_sigma(sigma)
        got = node.decode(node.z(x0, eps), node.target(x0, eps))[0]
        assert_close(got, x0, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", TABLE)
def test_records_are_finite_float64_of_one_shape(name: str) -> None:
    form = build(TABLE[name])
    k = torch.tensor([0, 1, 2**23, 2**24 - 2, 2**24 - 1], dtype=torch.float64)
    c = form.coefficients((k + 0.5) / 2**24)  # the extreme draws of `uniform`
    for value in vars(c).values():
        assert value.shape == (5,)
        assert value.dtype == torch.float64
        assert value.isfinite().all()
    assert (c.weight == 1).all()
    assert (c.b > 0).all()


def test_known_rows() -> None:
    t = torch.tensor([0.3], dtype=torch.float64)
    rf = build(TABLE["rf"]).at_t(t)
    assert [x.item() for x in (rf.a, rf.b, rf.p, rf.q, rf.label)] == pytest.approx([0.7, 0.3, -1, 1, 300])
    v = build(TABLE["v/cos"]).at_t(t)
    assert [v.p.item(), v.q.item()] == pytest.approx([-math.sin(0.15 * math.pi), math.cos(0.15 * math.pi)])
    edm = build(TABLE["edm(-1.20,1.20)"]).at_sigma(torch.tensor([2.0]))
    # Karras et al. 2022, table 1: F = (x0 - c_skip z)/c_out with z = x0 + sigma eps
    skip, out = 0.25 / 4.25, 2 * 0.5 / math.sqrt(4.25)
    assert [edm.p.item(), edm.q.item()] == pytest.approx([(1 - skip) / out, -2 * skip / out])
    assert edm.c_in.item() == pytest.approx(1 / math.sqrt(4.25))


def test_determinants() -> None:
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    for name in ("rf", "v/cos", "v/linear"):
        assert_close(build(TABLE[name]).at_t(t).determinant, torch.ones_like(t))
    c = build(TABLE["edm/rf"]).at_t(t)
    assert_close(c.determinant, -torch.sqrt(0.25 + c.b**2) / 0.5)


def beta(n: np.ndarray) -> np.ndarray:
    """-d log abar / dt of LDM-linear at levels n from the product itself: a central difference of eighth order."""
    s = np.arange(1000)
    b = (math.sqrt(0.00085) + s / 999 * (math.sqrt(0.012) - math.sqrt(0.00085))) ** 2
    log_abar = np.concatenate([[0.0], np.cumsum(np.log1p(-b))])
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    return -1000 * sum(w * (log_abar[n + k] - log_abar[n - k]) for k, w in weights.items())


def paper_weight(name: str, t: np.ndarray, u: np.ndarray, c: Any) -> np.ndarray:
    """w_t in L_w as the paper gives it (secs. 2, 3.1), up to a constant; t is the law's u-quantile."""
    config = TABLE[name]
    sampler = config["sampler"]
    kind = name.partition("(")[0]
    if kind.startswith("rf"):
        s, m = sampler.get("s"), sampler.get("m")
        density = {
            "rf": lambda: np.ones_like(t),
            "rf/lognorm": lambda: np.exp(-((np.log(t / (1 - t)) - m) ** 2) / (2 * s**2)) / (t * (1 - t)),
            # |d f^-1/dt| of eq. 20, whose f falls: t = f(1 - u)
            "rf/mode": lambda: 1 / np.abs(-1 - s * (1 - math.pi / 2 * np.sin(math.pi * (1 - u)))),
            "rf/cosmap": lambda: 2 / (math.pi - 2 * math.pi * t + 2 * math.pi * t**2),
        }[kind]()
        return t / (1 - t) * density
    lam = np.log(c.a.numpy() ** 2 / c.b.numpy() ** 2)
    edm = np.exp(-lam) + 0.25
    if kind == "edm":
        P_m, P_s = config["path"]["schedule"]["P_m"], config["path"]["schedule"]["P_s"]
        return np.exp(-((lam + 2 * P_m) ** 2) / (2 * (2 * P_s) ** 2)) * edm
    n = np.rint(1000 * t).astype(int)
    return {
        "eps/cos": lambda: 1 / np.cosh(lam / 2),
        "v/cos": lambda: np.exp(-lam / 2),
        "eps/linear": lambda: 2 * c.b.numpy() ** 2 / beta(n),
        "v/linear": lambda: 2 * c.b.numpy() ** 2 / (c.a.numpy() ** 2 * beta(n)),
        "edm/rf": lambda: edm / np.cosh(lam / 4) ** 2,
        "edm/cos": lambda: edm / np.cosh(lam / 2),
    }[kind]()


@pytest.mark.parametrize("name", TABLE)
def test_practical_loss_weight_is_the_papers(name: str) -> None:
    form = build(TABLE[name])
    # levels of LDM-linear: t = n/1000, away from the ends where the difference needs neighbours
    u = torch.arange(10, 991, 7, dtype=torch.float64) / 1000
    t = form.sampler.quantile(u)
    c = form.at_t(t)
    # given z, an error of eps times (a q - b p)/a is one of y; L_w = -1/2 E_{t~U} w lambda' ||d eps||^2 (paper sec. 2)
    slope = 2 * (c.da / c.a - c.db / c.b)
    practical = -2 * c.weight * form.density(t) * (c.determinant / c.a) ** 2 / slope
    ratio = practical.numpy() / paper_weight(name, t.numpy(), u.numpy(), c)
    assert ratio / ratio[0] == pytest.approx(np.ones_like(ratio), rel=1e-5)


def stacked(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("u", [U, U.expand(3, 64)], ids=["B", "VB"])
def test_a_leading_variant_axis_equals_the_solos(u: Tensor) -> None:
    m, s = [-0.5, 0.0, 1.0], [0.6, 1.0, 2.2]
    families = [
        (
            Formulation(schedule.RF(), target.Velocity(), timestep.LogitNormal(stacked(m), stacked(s))),
            [Formulation(schedule.RF(), target.Velocity(), timestep.LogitNormal(*p)) for p in zip(m, s, strict=True)],
        ),
        (
            Formulation(schedule.RF(), target.Velocity(), timestep.Mode(stacked([-1.0, 0.5, 1.75]))),
            [Formulation(schedule.RF(), target.Velocity(), timestep.Mode(s)) for s in (-1.0, 0.5, 1.75)],
        ),
        (
            Formulation(schedule.EDM(stacked(m), stacked(s)), target.F(stacked([0.5, 0.7, 1.0])), timestep.Uniform()),
            [
                Formulation(schedule.EDM(*p), target.F(sd), timestep.Uniform())
                for p, sd in zip(zip(m, s, strict=True), (0.5, 0.7, 1.0), strict=True)
            ],
        ),
    ]
    for together, solos in families:
        c = together.coefficients(u)
        for i, solo in enumerate(solos):
            for field, value in vars(solo.coefficients(U)).items():
                got = getattr(c, field)
                assert got.shape == (3, 64)
                assert_close(got[i], value, rtol=0, atol=0)
            t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
            density = together.density(t)
            assert_close(density[i] if density.dim() == 2 else density, solo.density(t), rtol=1e-12, atol=0)


@pytest.mark.parametrize("data", [(3, 2, 2), (2,), (), (5, 7), (3, 4, 2, 2)])
def test_records_broadcast_against_data_of_any_rank(data: tuple[int, ...]) -> None:
    x0, eps = torch.randn(2, 64, *data, generator=generator(0, 0, "x"))
    c = build(TABLE["v/cos"]).coefficients(U).expand_to(x0).to(torch.float32)
    assert all(x.shape == (64, *(1 for _ in data)) and x.dtype == torch.float32 for x in vars(c).values())
    assert c.z(x0, eps).shape == x0.shape
    got = c.decode(c.z(x0, eps), c.target(x0, eps))
    assert_close(got[0], x0, rtol=1e-4, atol=1e-5)
    assert_close(got[1], eps, rtol=1e-4, atol=1e-5)
    for stacked in (x0[None], x0.expand(3, *x0.shape)):
        record = StackedFormulation([build(TABLE["v/cos"])] * 3).coefficients(U).expand_to(stacked).to(torch.float32)
        assert_close(record.z(stacked, eps)[2], c.z(x0, eps))


def test_velocity_is_the_flow() -> None:
    """x0 and eps fixed, dz/dt is the record's velocity (paper eq. 10)."""
    x0, eps = torch.randn(2, 64, dtype=torch.float64, generator=generator(0, 0, "x"))
    for path in SCHEDULES:
        form = Formulation(path, target.V(), timestep.Uniform())
        t = torch.linspace(0.05, 0.95, 64, dtype=torch.float64)
        _, slope = torch.func.jvp(lambda t, form=form: form.at_t(t).z(x0, eps), (t,), (torch.ones_like(t),))
        assert_close(form.at_t(t).velocity(x0, eps), slope, rtol=1e-8, atol=1e-8)


def test_training_of_ldm_linear_uses_its_levels_and_validation_does_not() -> None:
    form = build(TABLE["eps/linear"])
    u = torch.tensor([0.12345], dtype=torch.float64)
    assert form.coefficients(u).t.item() == pytest.approx(0.124)
    assert form.at_t(u).t.item() == 0.12345


@pytest.mark.parametrize("path", [schedule.EDM(0.0, 1.0), schedule.EDMRF(), schedule.EDMCosine()])
def test_the_edm_family_takes_the_uniform_sampler_only(path: schedule.Schedule) -> None:
    with pytest.raises(ValueError, match="takes the uniform sampler only, not CosMap"):
        Formulation(path, target.F(0.5), timestep.CosMap())
