"""Small backbones of every kind, their inputs, and weights that hide nothing."""

import pytest
import torch
from hydra.utils import instantiate

from flowzoo.backbones.size import preset
from flowzoo.encoders.text import Text, TextSpec

SPEC = TextSpec(lengths=(3, 2), dims=(5, 7), pooled=(4, 0))
SMALL = {"patch_size": 4, "depth": 3, "width": 32, "heads": 2}


OPTIONS = {"mmdit+dual": {"dual_attention": 2}}


def make(name, *, text=SPEC, size=(16, 16), channels=3, **overrides):
    config = preset(name.partition("+")[0], **SMALL | OPTIONS.get(name, {}) | overrides)
    return instantiate(config, channels=channels, size=size, text=text)


def inputs(batch=2, height=16, width=16, spec=SPEC, dtype=torch.float32, seed=0):
    gen = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=gen, dtype=torch.float64).to(dtype)  # noqa: E731
    text = Text(
        tuple(draw(batch, n, d) for n, d in zip(spec.lengths, spec.dims, strict=True)),
        tuple(draw(batch, p) for p in spec.pooled),
    )
    return draw(batch, 3, height, width), torch.linspace(5, 995, batch).to(dtype), text


def randomise(net, seed=0):
    """Every parameter drawn anew: zero initialisation would hide mistakes."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 4
            p.copy_(torch.randn(p.shape, generator=gen, dtype=torch.float64) / fan_in**0.5)
    return net


@pytest.fixture(params=["dit", "crossdit", "uvit", "mmdit", "mmdit3", "mmdit+dual"])
def name(request):
    return request.param


@pytest.fixture(name="make")
def _make():
    return make


@pytest.fixture(name="inputs")
def _inputs():
    return inputs


@pytest.fixture(name="randomise")
def _randomise():
    return randomise
