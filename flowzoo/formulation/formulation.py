"""A formulation: the record of a few numbers per sample that training, validation and sampling share."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from flowzoo.formulation import limits
from flowzoo.formulation.loss import Loss, OnTarget
from flowzoo.formulation.schedule import SIGMA_MAX, Schedule, State
from flowzoo.formulation.target import Target
from flowzoo.formulation.timestep import TimestepSampler, Uniform
from flowzoo.formulation.weighting import Plain, Weighting


@dataclass(frozen=True)
class Coefficients:
    """float64 tensors of one shape [..., B] (or [] for a single solver node)."""

    t: Tensor  # 0 = data, 1 = noise
    a: Tensor  # z = a x0 + b eps
    b: Tensor
    da: Tensor  # derivatives in t: flow velocity = da x0 + db eps
    db: Tensor
    p: Tensor  # training target y = p x0 + q eps
    q: Tensor
    c_in: Tensor  # the network sees c_in z
    label: Tensor  # for the time embedding, 0..1000
    weight: Tensor  # loss = weight * mean((net - y)^2): where the error is measured and how it is weighed

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Coefficients":
        return Coefficients(*(function(getattr(self, field.name)) for field in fields(self)))

    def expand_to(self, x: Tensor) -> "Coefficients":
        """With as many trailing singleton axes as x [..., B, *data] has axes of data, of any number.

        Fields [B] then broadcast against [B, C, H, W], [B, L, D] or [B, 2], and [V, B] against [V, B, C, H, W].
        """
        axes = (...,) + (None,) * (x.ndim - self.t.ndim)
        return self._map(lambda field: field[axes])

    def to(self, *args: Any, **kwargs: Any) -> "Coefficients":
        """As Tensor.to, on every field."""
        return self._map(lambda x: x.to(*args, **kwargs))

    def __getitem__(self, index: Any) -> "Coefficients":
        return self._map(lambda x: x[index])

    def expand(self, *shape: int) -> "Coefficients":
        """As Tensor.expand, on every field."""
        return self._map(lambda x: x.expand(*shape))

    def z(self, x0: Tensor, eps: Tensor) -> Tensor:
        # paper eq. 2
        return self.a * x0 + self.b * eps

    def target(self, x0: Tensor, eps: Tensor) -> Tensor:
        return self.p * x0 + self.q * eps

    def velocity(self, x0: Tensor, eps: Tensor) -> Tensor:
        # paper eq. 10
        return self.da * x0 + self.db * eps

    @property
    def determinant(self) -> Tensor:
        """Of z, y as functions of x0, eps; where it is 0, they cannot be recovered."""
        return self.a * self.q - self.b * self.p

    def decode(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(x0, eps) from the state and the network's output: the inverse of [[a, b], [p, q]]."""
        det = self.determinant
        return (self.q * z - self.b * y) / det, (self.a * y - self.p * z) / det


class Formulation:
    """schedule x target x timestep sampler, and how the error of the target is measured and weighed.

    ValueError where the schedule is the law and the sampler not Uniform, where the mean weight of a loss is infinite at
    uniform t and it has no clip, and for a weighting of a loss that is not the target's own.
    """

    def __init__(
        self,
        schedule: Schedule,
        target: Target,
        sampler: TimestepSampler,
        loss: Loss | None = None,
        weighting: Weighting | None = None,
        name: str = "",
    ) -> None:
        """loss None: the target's own; weighting None: none. `name` is the printed one, see names.py."""
        loss, weighting = loss or OnTarget(), weighting or Plain()
        kind = type(schedule).__name__
        if schedule.fixed_law and not (isinstance(sampler, Uniform) and sampler.shift == 1):
            other = type(sampler).__name__
            raise ValueError(limits.no_other_law(kind, other if not isinstance(sampler, Uniform) else "a shift"))
        predicted, measured = type(target).__name__, type(loss).__name__
        if loss.clip is None and loss.space is not None and limits.diverges(schedule, target, loss.space):
            raise ValueError(limits.no_clip(kind, predicted, measured))
        if not isinstance(weighting, Plain) and not isinstance(loss, OnTarget):
            raise ValueError(limits.no_weighting_of_a_loss(type(weighting).__name__, measured))
        self.schedule, self.target, self.sampler = schedule, target, sampler
        self.loss, self.weighting, self.name = loss, weighting, name
        self.sigma_start = schedule.sigma_start
        # eps where a = 0 says nothing about x0: such a path starts where EDM does
        if not (self.at_sigma(self.sigma_start).determinant.abs() > 0).all():
            self.sigma_start = min(self.sigma_start, SIGMA_MAX)

    @property
    def formulations(self) -> "tuple[Formulation, ...]":
        """Those that it stands for: itself alone, where a stack has V."""
        return (self,)

    def coefficients(self, u: Tensor) -> Coefficients:
        """For training: u [..., B] uniform, strictly inside (0, 1)."""
        drawn = self.sampler.quantile_on(self.schedule, u.double())
        return self._record(self.schedule.at_t(self.schedule.training_time(drawn)))

    def at_t(self, t: Tensor | float) -> Coefficients:
        """For validation: any t in [0, 1]."""
        return self._record(self.schedule.at_t(torch.as_tensor(t, dtype=torch.float64)))

    def at_sigma(self, sigma: Tensor | float) -> Coefficients:
        """Solver nodes: sigma = b/a from 0 to infinity (a = 0), as far as the schedule reaches."""
        return self._record(self.schedule.at_sigma(torch.as_tensor(sigma, dtype=torch.float64)))

    def density(self, t: Tensor) -> Tensor:
        """Of the drawn t."""
        return self.sampler.density_on(self.schedule, t)

    def _record(self, s: State) -> Coefficients:
        p, q = self.target.row(s)
        c_in, label, determinant = self.target.c_in(s), self.schedule.label(s), s.a * q - s.b * p
        weight = self.target.weight(s) * self.loss.weight(s, determinant) * self.weighting.weight(s, determinant)
        return Coefficients(*torch.broadcast_tensors(*s, p, q, c_in, label, weight))
