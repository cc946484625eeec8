"""Each of the 61, as the command line composes it: built, distinct, and one step on every backbone."""

import pytest
import torch
from hydra.utils import instantiate

from flowzoo.backbones.size import preset
from flowzoo.encoders.text import Text, TextSpec
from flowzoo.formulation import names
from flowzoo.formulation.formulation import Formulation
from flowzoo.randomness import generator, uniform

BACKBONES = ["dit", "crossdit", "uvit", "mmdit", "mmdit3"]
SPEC = TextSpec(lengths=(3, 2), dims=(5, 7), pooled=(4, 6))


def formulation(name: str) -> Formulation:
    cfg = names.TABLE[name]
    return Formulation(*(instantiate(part) for part in (*cfg["path"].values(), cfg["sampler"])))


def test_there_are_61_and_no_two_train_alike() -> None:
    u = uniform((64,), generator(0, 0, "u"))
    records = []
    for name in names.TABLE:
        c = formulation(name).coefficients(u)
        # what a network sees and is asked for, up to the scale of the state
        records.append(torch.stack([c.c_in * c.a, c.c_in * c.b, c.p, c.q, c.label / 1000]).flatten())
    gaps = torch.cdist(torch.stack(records), torch.stack(records), p=torch.inf)
    gaps.fill_diagonal_(1.0)
    assert len(records) == 61
    assert gaps.min() > 1e-3


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_step_of_each_on_every_backbone(backbone: str) -> None:
    """The first step of AdamW moves the output layer, which starts at zero, and, being small, lowers the loss."""
    torch.manual_seed(0)
    small = preset(backbone, patch_size=4, depth=2, width=32, heads=2)
    net = instantiate(small, channels=3, size=(16, 16), text=SPEC)
    start = {key: value.clone() for key, value in net.state_dict().items()}
    x0, eps = torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16)
    u = uniform((8,), generator(0, 0, "u"))
    text = Text(
        tuple(torch.randn(8, n, d) for n, d in zip(SPEC.lengths, SPEC.dims, strict=True)),
        tuple(torch.randn(8, p) for p in SPEC.pooled),
    )
    for name in names.TABLE:
        net.load_state_dict(start)
        net.zero_grad()
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, weight_decay=0.0)
        c = formulation(name).coefficients(u).expand_to(x0).to(torch.float32)

        def loss(c=c) -> torch.Tensor:
            out = net(c.c_in * c.z(x0, eps), c.label.flatten(), text)
            return (c.weight * (out - c.target(x0, eps)).square()).mean()

        before = loss()
        before.backward()
        optimizer.step()
        with torch.no_grad():
            assert loss() < before, name
