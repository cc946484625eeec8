import pytest
import torch

from flowzoo.captured import WARM_UPS, Captured

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


def test_every_call_takes_effect_once() -> None:
    total = torch.zeros(3, device="cuda")

    def add(x: torch.Tensor) -> torch.Tensor:
        total.add_(x)
        return 2 * total

    captured = Captured(add)
    for k in range(WARM_UPS + 4):
        out = captured(torch.full((3,), float(k), device="cuda"))
        assert out.tolist() == [k * (k + 1.0)] * 3
    assert captured(torch.ones(1, device="cuda")).shape == (3,)  # another shape has calls of its own
