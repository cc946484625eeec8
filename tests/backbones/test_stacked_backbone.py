"""Many networks in one tensor give what each gives, and their gradients."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from flowzoo.backbones.mmdit import MMDiT
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.encoders.text import Text, TextSpec

SPEC = TextSpec(lengths=(3, 2), dims=(8, 4), pooled=(4, 0))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = MMDiT(channels=3, size=(8, 8), text=SPEC, patch_size=4, depth=2, width=16, heads=2).double()
    for p in net.parameters():  # so that nothing is hidden behind a gate of zero
        nn.init.normal_(p, std=0.3)
    return net


def text(*lead: int) -> Text:
    gen = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*lead, *shape, generator=gen, dtype=torch.float64)  # noqa: E731
    return Text((draw(3, 8), draw(2, 4)), (draw(4), draw(0)))


@pytest.mark.parametrize("own_text", [False, True])
def test_outputs_and_gradients_are_those_of_each(own_text: bool) -> None:
    nets = [network(seed) for seed in range(3)]
    stack = StackedBackbone(nets)
    gen = torch.Generator().manual_seed(1)
    z = torch.randn(3, 5, 3, 8, 8, generator=gen, dtype=torch.float64)
    label = 1000 * torch.rand(3, 5, generator=gen)
    words = text(3, 5) if own_text else text(5)
    out = stack(z, label, words)
    out.square().sum().backward()
    for v, net in enumerate(nets):
        alone = net(z[v], label[v], words.rows(v) if own_text else words)
        assert_close(out[v], alone, rtol=1e-10, atol=1e-10)
        alone.square().sum().backward()
        rows = stack.cut(stack.flat.grad[v])
        for name, p in net.named_parameters():
            assert_close(rows[name], p.grad, rtol=1e-9, atol=1e-9)


def test_under_autocast_no_worse_than_each_alone(name: str, make: Any, inputs: Any, randomise: Any) -> None:
    nets = [randomise(make(name), seed) for seed in range(2)]
    z, label, words = inputs(3)
    stack = StackedBackbone(nets)

    def error(out: Tensor, v: int) -> float:
        exact = copy.deepcopy(nets[v]).double()(z.double(), label, words.to(torch.float64))
        return float((out - exact).norm() / exact.norm())

    with torch.autocast("cpu", torch.bfloat16):
        out = stack(z.expand(2, *z.shape), label.expand(2, -1), words)
        alone = [net(z, label, words) for net in nets]
    for v in range(2):
        assert error(out[v], v) < 1.5 * error(alone[v], v) < 0.1
    out.float().square().sum().backward()
    assert stack.flat.grad.isfinite().all()


def test_a_row_is_a_state_and_back() -> None:
    nets = [network(seed) for seed in range(2)]
    stack = StackedBackbone([*nets, nets[0]])
    assert len(stack) == 3
    assert [name for name, _ in stack.named_parameters()] == ["flat"]
    other = network(7)
    other.load_state_dict(stack.member(stack.flat[1].detach()), strict=True)
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), nets[1].parameters(), strict=True))
    assert torch.equal(stack.row(other.state_dict()), stack.flat[1])
    assert torch.equal(stack.flat[0], stack.flat[2])


def test_other_weights_in_the_same_network() -> None:
    nets = [network(seed) for seed in range(2)]
    stack = StackedBackbone(nets)
    swapped = stack.holding(stack.flat.detach().flip(0))
    z, label = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64), torch.zeros(2, 1)
    assert_close(swapped(z, label, text(1)), stack(z.flip(0), label, text(1)).flip(0))
    assert len(stack) == len(swapped) == 2


def test_what_does_not_fit_is_named() -> None:
    stack = StackedBackbone([network(0)])
    state = network(1).state_dict()
    wrong = {name: value[:1] if name.endswith("image.linear.bias") else value for name, value in state.items()}
    with pytest.raises(ValueError, match=r"image\.linear\.bias has shape \[1\]"):
        stack.row(wrong)
    with pytest.raises(ValueError, match=r"image\.linear\.bias is missing"):
        stack.row({name: value for name, value in state.items() if name != "image.linear.bias"})


def test_buffers_must_be_constants() -> None:
    class Counts(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.register_buffer("n", torch.tensor(n))

    with pytest.raises(ValueError, match="buffer n differs"):
        StackedBackbone([Counts(1), Counts(2)])


@pytest.mark.parametrize("variants", [1, 2])
def test_a_backbone_that_knows_no_counts_gets_every_token(variants: int) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
            return z + self.weight * text.tokens[0].mean((1, 2))[:, None, None, None]

    stack, z = StackedBackbone([Mean() for _ in range(variants)]), torch.zeros(variants, 2, 3, 8, 8)
    told = Text((torch.cat([torch.randn(2, 3, 8), torch.zeros(2, 5, 8)], 1),), (torch.zeros(2, 0),))
    merged = told.merged()
    assert merged.tokens[0].shape[1] == 4
    assert torch.equal(stack(z, z[:, :, 0, 0, 0], merged), stack(z, z[:, :, 0, 0, 0], told))
