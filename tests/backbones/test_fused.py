from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowzoo.backbones import fused
from flowzoo.backbones.parts import QKV, Tokens, attend_jointly


@pytest.mark.slow
def test_kernels_are_what_they_stand_for(kernel_laws: Callable[[Path], None]) -> None:
    kernel_laws(Path(__file__).with_name("fused_laws.py"))


def test_plain_torch_elsewhere() -> None:
    half = torch.zeros(1, 2, 4, dtype=torch.bfloat16)
    assert not fused.wanted(half)
    x, h = Tokens(half).normed(half[:, :1], half[:, :1])
    assert x is half
    assert h.dtype == torch.bfloat16


def test_plain_torch_for_heads_of_a_width_no_kernel_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "wanted", lambda _: True)
    assert 48 not in fused.HEADS
    (out,) = attend_jointly([QKV(96, heads=2, qk_norm=True)], [torch.randn(3, 5, 96)])
    assert out.shape == (3, 5, 96)
