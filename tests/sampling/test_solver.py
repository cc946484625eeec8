"""Solvers against the closed form: the flow carries quantiles to quantiles (design rule 4)."""

import json
from functools import cache

import pytest
import torch
from ideal import GAUSSIAN, MIXTURE, build, exact_start, ideal_net, quantiles
from torch import Tensor
from torch.testing import assert_close

from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.names import TABLE, parse
from flowzoo.formulation.schedule import EDM, EDMRF, RF, Cosine, EDMCosine
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.formulation.target import F, V, Velocity
from flowzoo.formulation.timestep import Uniform
from flowzoo.sampling.grid import Common, Grid, Karras, Path, UniformT
from flowzoo.sampling.solver import EulerT, Heun, Recombine, Rule, Sample, Solver

CLEAN = quantiles(torch.tensor(1.0).double(), torch.tensor(0.0).double())
# the quantiles in the valley between the mixture's modes are steep: Euler's error there is six times the Gaussian's
EULER_BOUND = {"gaussian": 0.03, "mixture": 0.12}
RULES = {rule.name: rule for rule in (Recombine(), Heun(), EulerT())}
GRIDS = {grid.name: grid for grid in (Common(), Path(), UniformT(), Karras())}


def run(form: Formulation, rule: Rule, grid: Grid, steps: int) -> Sample:
    levels = grid.levels(form, steps)
    return rule.sample(ideal_net(form), form, exact_start(form, levels[0]), levels)


@cache
def errors(path: str, rule: str, grid: str, steps: int) -> dict[str, float]:
    form = build({"path": json.loads(path), "sampler": TABLE["rf"]["sampler"]})
    error = (run(form, RULES[rule], GRIDS[grid], steps).x0 - CLEAN).abs()
    return {"gaussian": error[GAUSSIAN].max().item(), "mixture": error[MIXTURE].max().item()}


def errors_of(name: str, rule: str, grid: str, steps: int) -> dict[str, float]:
    """Solving does not depend on the timestep law, so the 61 share the results of their 22 paths."""
    return errors(json.dumps(TABLE[name]["path"]), rule, grid, steps)


@pytest.mark.parametrize("name", TABLE)
def test_heun_on_karras_is_exact_to_1e_3_and_of_second_order(name: str) -> None:
    coarse, fine = (errors_of(name, "heun", "karras", steps) for steps in (256, 512))
    for law in coarse:
        assert coarse[law] < 1e-3
        assert 3.5 < coarse[law] / fine[law] < 4.8


@pytest.mark.parametrize("name", TABLE)
def test_euler_keeps_its_bound_on_every_grid_and_halves(name: str) -> None:
    form = build(TABLE[name])
    for grid in ("common", "path", "karras", *(["uniform_t"] if form.schedule.uniform_t else [])):
        coarse = errors_of(name, "recombine", grid, 256)
        assert all(coarse[law] < EULER_BOUND[law] for law in coarse), (grid, coarse)
    fine = errors_of(name, "recombine", "karras", 512)
    assert all(1.85 < errors_of(name, "recombine", "karras", 256)[law] / fine[law] < 2.15 for law in fine)


@pytest.mark.parametrize("name", [name for name in TABLE if not build(TABLE[name]).schedule.fixed_law])
def test_euler_in_t_keeps_the_bound(name: str) -> None:
    for grid in ("common", "path", "uniform_t"):
        error = errors_of(name, "euler_t", grid, 256)
        assert all(error[law] < EULER_BOUND[law] for law in error)


def test_the_error_of_euler_on_the_common_grid() -> None:
    for steps, expected in {5: 0.39, 10: 0.20, 25: 0.085, 50: 0.043, 256: 0.0085}.items():
        assert errors_of("rf", "recombine", "common", steps)["gaussian"] == pytest.approx(expected, rel=0.03)
    assert errors_of("rf", "heun", "common", 256)["gaussian"] < 3e-4


@pytest.mark.parametrize("rule", ["recombine", "heun"])
def test_all_paths_to_infinite_sigma_agree_on_one_grid(rule: str) -> None:
    reference = run(build(TABLE["rf"]), RULES[rule], Karras(), 50).x0
    for name in TABLE:
        form = build(TABLE[name])
        if not name.endswith("/linear") and not (form.schedule.__class__ is RF and name != "rf"):
            assert_close(run(form, RULES[rule], Karras(), 50).x0, reference, atol=1e-9, rtol=0)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_order_by_slope(rule: Rule) -> None:
    steps = (32, 64, 128, 256)
    error = [errors_of("v/cos", rule.name, "karras", n)["gaussian"] for n in steps]
    x, y = torch.tensor(steps).double().log(), torch.tensor(error).double().log()
    slope = -((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    assert slope.item() == pytest.approx(rule.order, abs=0.15)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_network_evaluations_are_counted(rule: Rule) -> None:
    sample = run(build(TABLE["rf"]), rule, Common(), 10)
    assert sample.nfe == rule.evaluations(10)
    assert rule.evaluations(1) == 1
    # 49 and 24 of the 50 levels lie above sigma(1) = 14.6 beside the first: those steps are not taken
    assert run(build(TABLE["eps/linear"]), rule, Common(), 50).nfe == rule.evaluations(47)


@pytest.mark.parametrize("rule", [Recombine(), Heun()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("name", ["rf", "eps/cos", "v/linear"])
def test_the_end_is_the_last_estimate_exactly(rule: Rule, name: str) -> None:
    form = build(TABLE[name])
    goal = torch.tensor([0.25, -3.0], dtype=torch.float64)
    sample = rule.sample(lambda z, c: c.target(goal, (z - c.a * goal) / c.b), form, goal, Path().levels(form, 7))
    assert_close(sample.x0, goal, atol=1e-13, rtol=0)


@pytest.mark.parametrize("name", ["rf", "v/cos", "eps/cos", "eps/linear", "v/linear"])
@pytest.mark.parametrize("steps", [1, 5])
def test_euler_in_t_is_eulers_method_to_the_last_step(name: str, steps: int) -> None:
    form = build(TABLE[name])
    net, levels = ideal_net(form), UniformT().levels(form, steps)
    z = eps = exact_start(form, levels[0])
    nodes = form.at_sigma(levels)
    z = nodes[0].b * z
    for i in range(steps):
        v = nodes[i].velocity(*nodes[i].decode(z, net(z, nodes[i])))
        z = z + (nodes[i + 1].t - nodes[i].t) * v
    assert_close(EulerT().sample(net, form, eps, levels).x0, z, rtol=1e-13, atol=1e-13)


def test_the_literal_last_step_is_the_better_on_linear() -> None:
    """What the docstring says: ending on the estimate of the data instead, .34."""
    assert errors_of("v/linear", "euler_t", "path", 5)["gaussian"] == pytest.approx(0.062, abs=1e-3)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("names", [["rf"], ["v/cos"], ["eps/linear"], ["rf", "eps/cos", "eps/linear"]], ids=",".join)
def test_gradients_from_where_a_is_zero(rule: Rule, names: list[str]) -> None:
    """Of noise and weights, against finite differences; in a stack a = 0 for some variants alone."""
    forms = [build(TABLE[name]) for name in names]
    form = forms[0] if len(forms) == 1 else StackedFormulation(forms)
    solver = Solver(rule, Common())
    w = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    eps = torch.tensor([0.4, -1.3, 2.0], dtype=torch.float64, requires_grad=True)

    def sampled(w: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        made = solver.sample(lambda z, c: torch.tanh(w[0] * c.c_in * z + w[1]) + c.label / 1000 * z, form, eps, 4)
        return made.x0, made.path_length

    assert torch.autograd.gradcheck(sampled, (w, eps))


def test_path_length_for_rf_is_the_sum_of_v_dt() -> None:
    form, eps = build(TABLE["rf"]), torch.tensor([2.0, -1.0], dtype=torch.float64)
    velocity = torch.tensor([1.5, -4.0], dtype=torch.float64)
    sample = Recombine().sample(lambda z, c: velocity, form, eps, Common().levels(form, 10))
    assert_close(sample.path_length, velocity.abs())  # constant v over t in [0, 1]
    assert_close(sample.x0, eps - velocity)


def test_shape_dtype_and_device_of_images_are_kept() -> None:
    form = Formulation(Cosine(), V(), Uniform())
    eps = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    sample = Solver(Heun(), Common()).sample(lambda z, c: 0.1 * z * c.c_in, form, eps, 6)
    double = Solver(Heun(), Common()).sample(lambda z, c: 0.1 * z * c.c_in, form, eps.double(), 6)
    assert sample.x0.shape == eps.shape
    assert sample.x0.dtype == torch.float32
    assert sample.path_length.shape == (3,)
    assert_close(sample.x0.double(), double.x0, atol=1e-5, rtol=1e-5)


def test_float32_images_follow_float64() -> None:
    """All paths in float32 with the exact network: rounding stays near 1e-5, also from sigma = 80."""
    for name in ("rf", "eps/cos", "v/cos", "eps/linear", "edm(-1.20,0.60)"):
        form = build(TABLE[name])
        levels = Karras().levels(form, 25)
        eps = exact_start(form, levels[0])
        exact = Recombine().sample(ideal_net(form), form, eps, levels).x0
        single = Recombine().sample(ideal_net(form), form, eps.float(), levels).x0
        assert_close(single.double(), exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("schedule", [EDM(-1.2, 0.6), EDMRF(), EDMCosine()])
def test_euler_in_t_is_refused_for_the_edm_family(schedule: EDM) -> None:
    form = Formulation(schedule, F(0.5), Uniform())
    with pytest.raises(ValueError, match="euler_t is not offered for EDM"):
        Solver(EulerT(), Common()).sample(ideal_net(form), form, torch.zeros(1), 4)


@pytest.mark.parametrize("levels", [[1.0, 2.0, 0.0], [2.0, 1.0]])
def test_levels_that_do_not_fall_to_zero_are_refused(levels: list[float]) -> None:
    form = Formulation(RF(), Velocity(), Uniform())
    with pytest.raises(ValueError, match="must fall to 0"):
        Recombine().sample(lambda z, c: z, form, torch.zeros(1), torch.tensor(levels))


@pytest.mark.parametrize("shift", [0.0, -1.0, float("inf"), float("nan")])
def test_shift_must_be_positive(shift: float) -> None:
    with pytest.raises(ValueError, match=r"solver\.shift"):
        Solver(Recombine(), Common(), shift)


def test_free_combinations_carry_quantiles_too() -> None:
    for name in ("v/rf", "eps/rf", "eps/ddpm_linear", "v/edm_cos"):
        form = build(parse(name))
        assert (run(form, Heun(), Karras(), 256).x0 - CLEAN).abs().max() < 1e-3
