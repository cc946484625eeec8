"""How fast runs train that nobody has run yet: at the rate that the bench reached with networks of about their size."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from omegaconf import OmegaConf

# docs/performance.md: GFLOP of a network's forward pass on an image -> TFLOP/s of its training.
_RATES: Mapping[bool, Mapping[str, Mapping[float, float]]] = {  # by whether networks are stacked, and by card
    True: {"H100": {0.785: 175.5, 3.514: 227.5}, "H200": {0.785: 209.0}},
    False: {"H100": {74.06: 358.0, 575.8: 440.6}, "H200": {0.785: 92.4, 74.06: 387.0}},
}
_CORE = 0.08  # TFLOP/s of one core of a server's processor, float32
_STEP = 0.003  # seconds of a step of one small network: what is smaller still waits for its kernels' starts


@dataclass(frozen=True)
class Estimate:
    """Seconds of one image's training step."""

    seconds: float
    card: str
    is_here: bool  # whether there is such a card, or one that the bench does not know
    stacked: bool
    tflops: float
    gflop: float  # a forward pass of one image
    cpu_seconds: float  # by this machine's cores

    def __str__(self) -> str:
        card = f"one {self.card}" if self.is_here else f"one {self.card} (there is no GPU here)"
        kind = ", stacked," if self.stacked else ""
        return (
            f"about, by the bench: {card} trains networks of {self.gflop:,.2g} GFLOP a pass{kind} at "
            f"{self.tflops:,.0f} TFLOP/s; scoring is not counted"
        )


def estimate(config: Mapping[str, Any], stacked: bool) -> Estimate | None:
    """For a run's config; None where its network cannot be built here, for instance without its weights.

    Between the sizes that were measured the rate is interpolated, both in logarithms; beyond them it is the last. A
    size that the card lacks is another card's.
    """
    from flowzoo.bench.measure import forward_flops  # torch, which a plan with measured speeds does not need

    try:
        gflop = forward_flops(OmegaConf.create(dict(config))) / 1e9
    except Exception:  # whatever is wrong with a run is told when it runs
        return None
    here = _card()
    card = next((name for name in _RATES[stacked] if name in here), "H100")
    points = {size: rate for name in (*_RATES[stacked], card) for size, rate in _RATES[stacked][name].items()}
    sizes = sorted(points)
    tflops = float(np.exp(np.interp(np.log(gflop), np.log(sizes), np.log([points[size] for size in sizes]))))
    operations = 3 * gflop / 1000  # TFLOP of a training step, an image
    cpu = operations / (_CORE * (os.cpu_count() or 1))
    least = 0.0 if stacked else _STEP / config["trainer"]["batch_size"]
    return Estimate(max(least, operations / tflops), card, bool(here), stacked, tflops, gflop, cpu)


@cache
def _card() -> str:
    """The name of the GPU; empty where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
