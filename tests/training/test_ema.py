import pytest
import torch
from torch import Tensor

from flowzoo.training.ema import EMA, average


def moved(rows: Tensor, steps: int, ema: EMA) -> list[Tensor]:
    """Changes the weights at random, telling `ema`, and returns the weights at each of its updates."""
    seen = []
    for step in range(1, steps + 1):
        rows.add_(torch.randn_like(rows))
        ema.update(rows, step)
        if step % ema.every == 0:
            seen.append(rows.clone())
    return seen


def started(rows: Tensor, **settings: float) -> EMA:
    ema = EMA(**{"every": 1, "decay": 0.9, "bias_correction": True, **settings})
    ema.start(rows)
    return ema


def test_average_is_the_weighted_mean_of_what_was_seen() -> None:
    torch.manual_seed(0)
    rows = torch.randn(2, 3, dtype=torch.float64)
    ema = started(rows, every=3)
    seen = moved(rows, 20, ema)
    share = torch.tensor([0.9 ** (len(seen) - 1 - i) for i in range(len(seen))], dtype=torch.float64)
    expected = (share[:, None, None] * torch.stack(seen)).sum(0) / share.sum()
    torch.testing.assert_close(ema.average(), expected)


def test_plain_average_is_the_papers_recursion() -> None:
    torch.manual_seed(0)
    rows = torch.randn(2, 3, dtype=torch.float64)
    expected = rows.clone()
    ema = started(rows, decay=0.99, bias_correction=False)
    for weights in moved(rows, 10, ema):
        expected = 0.99 * expected + 0.01 * weights
    torch.testing.assert_close(ema.average(), expected)


def test_constant_weights_are_their_own_corrected_average() -> None:
    rows = torch.randn(2, 3)
    ema = started(rows, decay=0.99)
    ema.update(rows, 1)
    torch.testing.assert_close(ema.average(), rows)


def test_before_the_first_update_there_is_no_average() -> None:
    rows = torch.randn(2, 3)
    ema = started(rows, every=5)
    ema.update(rows, 4)
    assert ema.average() is None


def test_the_average_of_half_precision_weights_is_kept_in_float32() -> None:
    assert started(torch.randn(2, 3).bfloat16()).shadow.dtype == torch.float32


def test_state_says_by_itself_what_the_average_is() -> None:
    rows = torch.randn(2, 3)
    ema = started(rows)
    moved(rows, 4, ema)
    state = ema.state()
    torch.testing.assert_close(average(state), ema.average())
    torch.testing.assert_close(average({**state, "shadow": {"w": state["shadow"]}})["w"], ema.average())
    other = started(rows)
    other.load(state)
    torch.testing.assert_close(other.average(), ema.average())
    with pytest.raises(ValueError, match="decay"):
        started(rows, decay=0.8).load(state)
