"""What is chosen on a card, and that it is told."""

from types import SimpleNamespace

import pytest
import torch

from flowzoo.training.loop import Loop


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A GPU of a name, a memory in GiB, and with bf16 or without."""
    name, memory, bf16 = request.param
    told = SimpleNamespace(name=name, total_memory=memory * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: told)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)


T4, H100 = ("Tesla T4", 16, False), ("H100", 80, True)


@pytest.mark.parametrize(
    ("card", "loop", "half", "told"),
    [
        (H100, Loop(), True, "H100, 80.00 GiB; computes in bf16, weights in float32"),
        (T4, Loop(), False, "Tesla T4, 16.00 GiB; computes in float32, as it has no bf16"),
        (T4, Loop(precision="bf16-mixed"), True, "computes in bf16, weights in float32, which it only emulates"),
        (T4, Loop(precision="32-true"), False, "Tesla T4, 16.00 GiB; computes in float32"),
        (H100, Loop(precision="64-true"), False, "computes in float64"),
        (T4, Loop(batch_size=1024, accumulate=8), False, "no bf16; 8 parts of a batch, 128 samples at once"),
    ],
    indirect=["card"],
)
def test_what_is_chosen_is_told(card: None, loop: Loop, half: bool, told: str) -> None:
    assert loop.is_half is half
    assert loop.told.endswith(told)


def test_on_a_cpu_nothing_is_chosen() -> None:
    loop = Loop(accelerator="cpu")
    assert (loop.told, loop.is_half) == ("", False)
