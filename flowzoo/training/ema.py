"""Averages of the weights: the paper's exponential moving one (sec. B.3: every 100 steps at decay 0.99), or others."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor


class Average(Protocol):
    """An average of the weights of V variants, the rows of a tensor [V, P]: what validation and scoring call `ema`.

    Rows may be shares of the weights, so that what an average does is the same for every column.
    """

    def start(self, rows: Tensor) -> None:
        """Begin with the weights `rows` [V, P], on their device."""

    def update(self, rows: Tensor, step: int) -> None:
        """Called after optimiser step number `step`, counted from 1; outside of CUDA graphs."""

    def average(self) -> Tensor | None:
        """The averaged weights [V, P]; None where there are none yet, and the weights as they are stand for them."""

    def state(self) -> dict[str, Any]:
        """What lasts, by name: tensors [V, P], and numbers."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave. ValueError where the settings differ."""


class EMA:
    """Averages the weights of V variants, the rows of a tensor [V, P], in float32 or better.

    `bias_correction=True` starts the average at zero and divides by 1 - decay^n, as Adam does, so that a short run does
    not still hold its initial weights; `False` is the paper's plain average, which starts at the initial weights.
    Before the first update the average is the weights as they are.
    """

    shadow: Tensor  # [V, P]

    def __init__(self, every: int = 100, decay: float = 0.99, bias_correction: bool = True) -> None:
        self.every, self.decay, self.bias_correction = every, decay, bias_correction
        self.updates = 0

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Begins with the weights `rows` [V, P], on their device."""
        self.updates = 0
        kept = rows.to(torch.promote_types(rows.dtype, torch.float32), copy=True)
        self.shadow = kept.zero_() if self.bias_correction else kept

    @torch.no_grad()
    def update(self, rows: Tensor, step: int) -> None:
        """To be called after optimiser step number `step`, counted from 1."""
        if step % self.every == 0:
            self.updates += 1
            self.shadow.lerp_(rows.to(self.shadow.dtype), 1 - self.decay)

    def average(self) -> Tensor | None:
        """The averaged weights [V, P]; None before the first update."""
        return average(self.state())

    def state(self) -> dict[str, Any]:
        """Holds its own decay and correction: a checkpoint must say by itself what its average is."""
        told = {"updates": self.updates, "decay": self.decay, "bias_correction": self.bias_correction}
        return {**told, "shadow": self.shadow}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave. ValueError where the settings differ."""
        if (state["decay"], state["bias_correction"]) != (self.decay, self.bias_correction):
            raise ValueError(f"the checkpoint's EMA has decay {state['decay']}, this run has {self.decay}")
        self.updates = state["updates"]
        self.shadow.copy_(state["shadow"])


AVERAGE = "average"  # in a state: the averaged weights themselves, None before there are any


def told_average(ema: Average) -> dict[str, Any]:
    """The state of an average, from which `average` reads it: of a class of one's own the average is in it."""
    if isinstance(ema, EMA) and type(ema).average is EMA.average:
        return ema.state()
    return {**ema.state(), AVERAGE: ema.average()}


def average(state: Mapping[str, Any]) -> Any:
    """The averaged weights, of an average's state with tensors, or with tensors by name as in a checkpoint."""
    if AVERAGE in state:
        return state[AVERAGE]
    if not state["updates"]:
        return None
    scale = 1 / (1 - state["decay"] ** state["updates"]) if state["bias_correction"] else 1.0
    shadow = state["shadow"]
    return shadow * scale if isinstance(shadow, Tensor) else {name: s * scale for name, s in shadow.items()}


def check_average(one: Average, other: Average) -> None:
    """Has two of a kind average the same weights, the second going on from the first one's state.

    Raises:
        ValueError: the second does not go on as the first, or the average is not like the weights.
    """
    rows = torch.ones(2, 3)
    one.start(rows)
    for step in range(1, 5):
        one.update(rows * step, step)
    other.start(rows)
    other.load(one.state())
    for each in (one, other):
        each.update(rows * 5, 5)
    found, again = one.average(), other.average()
    if (found is None) != (again is None) or (found is not None and not torch.equal(found, again)):  # type: ignore[arg-type]
        raise ValueError(
            "it does not go on from its own state as it would have done; allowed is a state with all of it"
        )
    if found is not None and found.shape != rows.shape:
        raise ValueError(f"average() has shape {list(found.shape)}; allowed is that of the rows, {list(rows.shape)}")
