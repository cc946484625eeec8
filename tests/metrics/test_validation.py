"""Validation of data of any rank, alone and stacked."""

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.testing import assert_close

from flowzoo.encoders.text import Text
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.names import parse
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.metrics.validation import TIMES, ValidationBatch, validation_loss
from flowzoo.sampling.grid import Common
from flowzoo.sampling.guidance import guided
from flowzoo.sampling.solver import Recombine, Solver

N = 6


def made(name: str) -> Formulation:
    config = parse(name)
    return Formulation(
        instantiate(config["path"]["schedule"]), instantiate(config["path"]["target"]), instantiate(config["sampler"])
    )


FORMS = [made(name) for name in ("rf", "v/cos", "edm(0.00,0.60)")]
TEXT = Text((torch.ones(N, 2, 3),), (torch.ones(N, 3),))


def net(z: Tensor, label: Tensor, text: Text) -> Tensor:
    """Depends on every input; z [..., B, *data]."""
    return torch.sin(z) + label.reshape(*label.shape, *(1,) * (z.ndim - label.ndim)) / 1000 * text.pooled[0].mean()


@pytest.mark.parametrize("data", [(2,), (5, 4), (3, 4, 4), (3, 2, 4, 4)])
def test_the_loss_of_data_of_any_rank_is_the_mean_over_all_axes(data: tuple[int, ...]) -> None:
    gen = torch.Generator().manual_seed(0)
    x0 = torch.randn(N, *data, generator=gen, dtype=torch.float64)
    batch = ValidationBatch.of(x0, TEXT)
    together = validation_loss(net, StackedFormulation(FORMS), batch, 4)
    assert together.shape == (3, 8)
    for v, form in enumerate(FORMS):
        alone = validation_loss(net, form, batch, 4)
        assert_close(together[v], alone, rtol=1e-10, atol=0)
        c = form.at_t(TIMES[3])
        error = net(c.c_in * c.z(x0, batch.eps), c.label.float().expand(N), TEXT) - c.target(x0, batch.eps)
        assert_close(alone[3], error.square().mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("data", [(2,), (5, 4), (3, 2, 4, 4)])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_data_of_any_rank_are_sampled(data: tuple[int, ...], scale: float) -> None:
    eps = torch.randn(N, *data, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solver = Solver(Recombine(), Common())
    null = Text((torch.zeros(N, 2, 3),), (torch.zeros(N, 3),))
    together = solver.sample(guided(net, TEXT, null, scale, lead=2), StackedFormulation(FORMS), eps, 4)
    for v, form in enumerate(FORMS):
        alone = solver.sample(guided(net, TEXT, null, scale), form, eps, 4)
        assert alone.x0.shape == eps.shape
        assert_close(together.x0[v], alone.x0, rtol=1e-6, atol=1e-6)
