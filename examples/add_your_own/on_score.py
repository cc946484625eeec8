"""A loss space of your own: the error of the score -eps/b, whose weight grows towards clean images and must be cut."""

from torch import Tensor

from flowzoo.formulation.loss import Loss, ratio
from flowzoo.formulation.schedule import State


class OnScore(Loss):
    """epshat is off by a/(a q - b p) times the output's error, the score by 1/b of that; `clip` > 0 cuts weights."""

    def __init__(self, clip: float) -> None:
        if not clip > 0:
            raise ValueError(f"OnScore's clip={clip}: allowed is a number greater than 0")
        self.clip = clip

    def weight(self, s: State, determinant: Tensor) -> Tensor:
        return ratio(s.a, determinant * s.b).square().clamp(max=self.clip)
