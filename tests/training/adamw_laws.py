"""AdamW's kernel against plain torch: test_adamw.py has a process for it, as test_fused.py has for its laws."""

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from flowzoo.training import adamw

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HALF = torch.float16 if INTERPRETED else torch.bfloat16  # which the interpreter cuts off instead of rounding


@pytest.fixture(autouse=True)
def _device() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.device(DEVICE):
        yield


@pytest.mark.parametrize("width", [1, 20, 1024, 2999])  # rows shorter than a block, and such as end within one
@pytest.mark.parametrize("half", [False, True])
def test_rows_move_as_in_torch(width: int, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(kernel: bool) -> list[Tensor]:
        gen = torch.Generator(DEVICE).manual_seed(width)
        flat = torch.randn(5, width, generator=gen)
        copy = flat.to(HALF) if half else None
        m, v = torch.zeros_like(flat), torch.zeros_like(flat)
        alive = torch.tensor([True, True, False, True, True])
        rates = torch.tensor([1e-3, 1e-2, 0.0, 1e-1, 1e-4])
        clip = torch.tensor([1.0, 0.5, float("nan"), 1e-3, 0.1])
        monkeypatch.setattr(adamw, "wanted", lambda _: kernel)
        for t in range(1, 5):
            gradient = torch.randn(5, width, generator=gen)
            gradient[2, 0], gradient[2, -1] = float("inf"), float("nan")
            given = gradient.to(HALF) if half else gradient
            root_bias = torch.tensor((1 - 0.99**t) ** 0.5)
            rate = rates / (1 - 0.9**t)
            adamw.adamw_step(flat, copy, m, v, given, alive, clip, 1 - 0.1 * rates, rate, root_bias, (0.9, 0.99), 1e-8)
            assert copy is None or torch.equal(copy, flat.to(HALF))
        return [flat, m, v]

    for one, other in zip(run(True), run(False), strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-6)
