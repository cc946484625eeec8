"""How fast runs train that nobody has run yet: at the rate that the bench reached with the nearest size of network."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import log2
from typing import Any

from omegaconf import OmegaConf

# docs/performance.md: GFLOP of a network's forward pass on an image -> TFLOP/s of its training.
_RATES: Mapping[tuple[str, bool], Mapping[float, float]] = {  # by card, and whether networks are stacked
    ("H100", True): {0.785: 175.5, 3.514: 227.5},
    ("H100", False): {74.06: 358.0, 575.8: 440.6},
    ("H200", True): {0.785: 209.0},
    ("H200", False): {0.785: 92.4, 74.06: 387.0},
}
_CORE = 0.08  # TFLOP/s of one core of a server's processor, float32
_STEP = 0.003  # seconds of a step of one small network: what is smaller still waits for its kernels' starts
_ANOTHER_CARD = 1.0  # as far away as a network of twice the size


@dataclass(frozen=True)
class Estimate:
    """Seconds of one image's training step."""

    seconds: float
    card: str
    is_here: bool  # whether there is such a card, or one as near as the bench knows
    tflops: float
    gflop: float  # a forward pass that was measured
    own_gflop: float
    cpu_seconds: float  # by this machine's cores

    def __str__(self) -> str:
        card = f"one {self.card}" if self.is_here else f"one {self.card} (there is no GPU here)"
        return (
            f"about, by the bench: {card} does {self.tflops:,.0f} TFLOP/s with networks of {self.gflop:,.1f} GFLOP a "
            f"pass, these have {self.own_gflop:,.2g}; scoring is not counted"
        )


def estimate(config: Mapping[str, Any], stacked: bool) -> Estimate | None:
    """For a run's config; None where its network cannot be built here, for instance without its weights."""
    from flowzoo.bench.measure import forward_flops  # torch, which a plan with measured speeds does not need

    try:
        gflop = forward_flops(OmegaConf.create(dict(config))) / 1e9
    except Exception:  # whatever is wrong with a run is told when it runs
        return None
    here = _card()
    wanted = next((card for card, _ in _RATES if card in here), "H100")
    _, card, size, tflops = min(
        (abs(log2(gflop / size)) + (card != wanted) * _ANOTHER_CARD, card, size, rate)
        for (card, is_stacked), rates in _RATES.items()
        if is_stacked == stacked
        for size, rate in rates.items()
    )
    operations = 3 * gflop / 1000  # TFLOP of a training step, an image
    cpu = operations / (_CORE * (os.cpu_count() or 1))
    least = 0.0 if stacked else _STEP / config["trainer"]["batch_size"]
    return Estimate(max(least, operations / tflops), card, bool(here), tflops, size, gflop, cpu)


@cache
def _card() -> str:
    """The name of the GPU; empty where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
