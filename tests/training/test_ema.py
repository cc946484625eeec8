import pytest
import torch
from torch import nn

from flowzoo.training.ema import EMA, average


def moved(net: nn.Module, steps: int, ema: EMA) -> list[torch.Tensor]:
    """Changes the weights at random, telling `ema`, and returns the weights at each of its updates."""
    seen = []
    for step in range(1, steps + 1):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        ema.update(net, step)
        if step % ema.every == 0:
            seen.append(net.weight.detach().clone())
    return seen


def test_average_is_the_weighted_mean_of_what_was_seen() -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 2).double()
    ema = EMA(net, every=3, decay=0.9, bias_correction=True)
    seen = moved(net, 20, ema)
    share = torch.tensor([0.9 ** (len(seen) - 1 - i) for i in range(len(seen))], dtype=torch.float64)
    expected = (share[:, None, None] * torch.stack(seen)).sum(0) / share.sum()
    torch.testing.assert_close(ema.weights()["weight"], expected)


def test_plain_average_is_the_papers_recursion() -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 2).double()
    expected = net.weight.detach().clone()
    ema = EMA(net, every=1, decay=0.99, bias_correction=False)
    for weights in moved(net, 10, ema):
        expected = 0.99 * expected + 0.01 * weights
    torch.testing.assert_close(ema.weights()["weight"], expected)


def test_a_constant_network_is_its_own_corrected_average() -> None:
    net = nn.Linear(3, 2)
    ema = EMA(net, every=1, decay=0.99, bias_correction=True)
    ema.update(net, 1)
    torch.testing.assert_close(ema.weights()["weight"], net.weight.detach())


def test_before_the_first_update_there_is_no_average() -> None:
    net = nn.Linear(3, 2)
    ema = EMA(net, every=5, decay=0.99, bias_correction=True)
    ema.update(net, 4)
    assert ema.weights() is None
    with ema.applied(net):
        pass


def test_applied_restores_bit_for_bit_and_in_place() -> None:
    net = nn.Linear(3, 2)
    ema = EMA(net, every=1, decay=0.5, bias_correction=True)
    moved(net, 3, ema)
    before, address = net.weight.detach().clone(), net.weight.data_ptr()
    with ema.applied(net):
        assert not torch.equal(net.weight, before)
        torch.testing.assert_close(net.weight.detach(), ema.weights()["weight"])
    assert torch.equal(net.weight, before)
    assert net.weight.data_ptr() == address


def test_state_says_by_itself_what_the_average_is() -> None:
    net = nn.Linear(3, 2)
    ema = EMA(net, every=1, decay=0.9, bias_correction=True)
    moved(net, 4, ema)
    state = ema.state_dict()
    torch.testing.assert_close(average(state), ema.weights())
    other = EMA(net, every=1, decay=0.9, bias_correction=True)
    other.load_state_dict(state)
    torch.testing.assert_close(other.weights(), ema.weights())
    with pytest.raises(ValueError, match="decay"):
        EMA(net, every=1, decay=0.8, bias_correction=True).load_state_dict(state)
    with pytest.raises(ValueError, match="another backbone"):
        EMA(nn.Linear(3, 2, bias=False), every=1, decay=0.9, bias_correction=True).load_state_dict(state)
