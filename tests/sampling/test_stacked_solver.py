"""Variants that step together end where each ends alone."""

import pytest
import torch
from ideal import build, ideal_net
from torch import Tensor
from torch.testing import assert_close

from flowzoo.encoders.text import Text
from flowzoo.formulation.formulation import Coefficients
from flowzoo.formulation.names import TABLE
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.sampling.grid import Common, Grid, Karras, Path
from flowzoo.sampling.guidance import guided
from flowzoo.sampling.solver import EulerT, Heun, Recombine, Rule, Solver

NAMES = ["rf", "eps/linear", "v/cos", "eps/cos", "edm(-1.20,0.60)", "edm(0.00,0.60)", "edm/rf", "v/linear"]
EPS = torch.randn(198, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("grid", [Common(), Karras(), Path()], ids=lambda g: g.name)
@pytest.mark.parametrize("rule", [Recombine(), Heun(), EulerT()], ids=lambda r: r.name)
def test_each_variant_ends_where_it_ends_alone(rule: Rule, grid: Grid) -> None:
    names = NAMES[:4] if rule.name == "euler_t" else NAMES
    forms = [build(TABLE[name]) for name in names]
    nets = [ideal_net(f) for f in forms]

    def net(z: Tensor, c: Coefficients) -> Tensor:
        return torch.stack([one(z[v], c[v]) for v, one in enumerate(nets)])

    solver = Solver(rule, grid, shift=1.5)
    together = solver.sample(net, StackedFormulation(forms), EPS, 12)
    for v, form in enumerate(forms):
        alone = solver.sample(nets[v], form, EPS, 12)
        assert_close(together.x0[v], alone.x0, rtol=1e-10, atol=1e-10)
        assert_close(together.path_length[v], alone.path_length, rtol=1e-10, atol=1e-10)
        assert together.nfe[v] == alone.nfe, names[v]


def test_steps_above_a_start_are_not_counted() -> None:
    forms = [build(TABLE[name]) for name in ("rf", "eps/linear")]
    made = Solver(Recombine(), Common()).sample(lambda z, c: 0 * z, StackedFormulation(forms), EPS, 50)
    assert made.nfe.tolist() == [50, 47]


def test_a_step_that_no_variant_takes_is_not_taken() -> None:
    calls = []

    def net(z: Tensor, c: Coefficients) -> Tensor:
        calls.append(z.shape)
        return 0 * z

    forms = StackedFormulation([build(TABLE["eps/linear"]), build(TABLE["v/linear"])])
    made = Solver(Recombine(), Common()).sample(net, forms, EPS, 50)
    assert calls == [(2, 198)] * 47
    assert made.nfe.tolist() == [47, 47]


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("interval", [None, (0.0, 3.0), (0.0, 1.5), (0.0, 0.5)])  # of both variants, of one, of none
def test_guidance_of_a_stack(scale: float, interval: tuple[float, float] | None) -> None:
    forms = [build(TABLE[name]) for name in ("rf", "edm(0.00,0.60)")]
    z = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    text, null = (Text((torch.full((3, 5, 4), x),), (torch.full((3, 4), x),)) for x in (1.0, 0.0))

    def backbone(z: Tensor, label: Tensor, text: Text) -> Tensor:
        assert label.shape == z.shape[:-3]
        return torch.sin(z) + label[..., None, None, None] / 1000 + text.pooled[0][..., None, None]

    sigmas = [1.0, 2.0]
    levels = torch.tensor(sigmas, dtype=torch.float64)[:, None]
    c = StackedFormulation(forms).at_sigma(levels)[:, 0, None, None, None, None].to(torch.float32)
    together = guided(backbone, text, null, scale, lead=2, interval=interval)(z, c)
    for v, (form, sigma) in enumerate(zip(forms, sigmas, strict=True)):
        c = form.at_sigma(sigma).to(torch.float32)
        alone = guided(backbone, text, null, scale, interval=interval)(z[v], c)
        assert_close(together[v], alone)
