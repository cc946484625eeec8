import math

import pytest
import torch
from ideal import build
from torch.testing import assert_close

from flowzoo.formulation.names import TABLE, parse
from flowzoo.sampling.grid import Common, Grid, Karras, Path, UniformT

GRIDS = [Common(), Path(), UniformT(), Karras()]
NAMES = ["rf", "eps/cos", "v/cos", "eps/linear", "v/linear", "edm/rf", "edm/cos", "eps/ddpm_linear"]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 5, 25])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_levels_fall_from_the_start_to_exactly_zero(grid: Grid, name: str, steps: int, shift: float) -> None:
    form = build(parse(name))
    levels = grid.levels(form, steps, shift)
    assert levels.dtype == torch.float64
    assert levels.shape == (steps + 1,)
    assert levels[0] == (min(80.0, form.sigma_start) if isinstance(grid, Karras) else form.sigma_start)
    assert levels[-1] == 0
    assert (levels[:-1] >= levels[1:]).all()
    assert levels[-2] > 0


def test_start_levels() -> None:
    starts = {name: build(parse(name)).sigma_start for name in (*TABLE, "x0/cos", "velocity/cos", "eps/rf", "F/rf")}
    assert {starts[name] for name in starts if name == "rf" or name.startswith("rf/")} == {math.inf}
    assert {starts[name] for name in starts if name.startswith("edm")} == {80.0}
    assert starts["eps/cos"] == starts["eps/rf"] == 80.0  # eps where a = 0 says nothing about x0
    assert starts["v/cos"] == starts["x0/cos"] == starts["velocity/cos"] == starts["F/rf"] == math.inf
    assert starts["eps/linear"] == starts["v/linear"] == pytest.approx(14.6147, abs=1e-4)


def test_common_is_rf_at_uniform_t_for_every_path() -> None:
    t = torch.arange(10, -1, -1, dtype=torch.float64) / 10
    sigma = t / (1 - t)
    for name in TABLE:
        form = build(TABLE[name])
        assert_close(Common().levels(form, 10), sigma.clamp(max=form.sigma_start))


def test_path_is_uniform_in_t_or_karras() -> None:
    for name in NAMES:
        form = build(parse(name))
        expected = Karras() if form.schedule.fixed_law else UniformT()
        assert_close(Path().levels(form, 10), expected.levels(form, 10))
    form = build(TABLE["v/cos"])
    assert_close(form.at_sigma(UniformT().levels(form, 10)).t, torch.linspace(1, 0, 11, dtype=torch.float64))


def test_karras_levels() -> None:
    i = torch.arange(18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert_close(Karras().levels(build(TABLE["edm/rf"]), 18)[:-1], expected)


@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_shift_is_equation_23(alpha: float) -> None:
    t = torch.linspace(1, 0, 9, dtype=torch.float64)
    form = build(TABLE["rf"])
    # paper eq. 23
    assert_close(form.at_sigma(Common().levels(form, 8, alpha)).t, alpha * t / (1 + (alpha - 1) * t))


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_below_one_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Common().levels(build(TABLE["rf"]), steps)


def test_uniform_t_is_refused_for_edm() -> None:
    with pytest.raises(ValueError, match="uniform_t is not offered for EDM"):
        UniformT().levels(build(TABLE["edm(-1.20,0.60)"]), 25)
