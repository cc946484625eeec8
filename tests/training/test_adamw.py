from collections.abc import Callable
from pathlib import Path

import torch

from flowzoo.training.adamw import wanted


def test_the_kernel_is_what_it_stands_for(kernel_laws: Callable[[Path], None]) -> None:
    kernel_laws(Path(__file__).with_name("adamw_laws.py"))


def test_plain_torch_elsewhere() -> None:
    assert not wanted(torch.zeros(1, 2))
