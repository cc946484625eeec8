"""Many formulations as one: the records of V variants in a few vectorised computations, not in V."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from flowzoo.formulation.formulation import Coefficients, Formulation

Part = TypeVar("Part")
PARTS = ("schedule", "target", "sampler", "loss", "weighting")  # of a formulation


class StackedFormulation:
    """V formulations with one record [V, ...] for all, equal to each one's own.

    Variants whose parts are of the same classes become one formulation, whose parameters carry
    a leading axis: the 61 of the paper are a dozen of these.
    """

    def __init__(self, formulations: Sequence[Formulation]) -> None:
        self.formulations = tuple(formulations)
        self.sigma_start = torch.tensor([f.sigma_start for f in self.formulations], dtype=torch.float64)
        groups: dict[Any, list[int]] = {}
        for i, f in enumerate(self.formulations):
            groups.setdefault(tuple(_kind(getattr(f, part)) for part in PARTS), []).append(i)
        self._members = list(groups.values())
        order = [i for members in self._members for i in members]
        self._place = torch.tensor(order).argsort()  # where each variant stands when the groups are laid end to end
        self._groups: dict[torch.device, list[Formulation]] = {}

    def __len__(self) -> int:
        return len(self.formulations)

    def coefficients(self, u: Tensor) -> Coefficients:
        """For training: u [B], the same for all variants, or [V, B] -> fields [V, B]."""
        return self._each(lambda f, x: f.coefficients(x), u)

    def at_t(self, t: Tensor) -> Coefficients:
        """For validation: t [B], the same for all variants, or [V, B] -> fields [V, B]."""
        return self._each(lambda f, x: f.at_t(x), t)

    def at_sigma(self, sigma: Tensor) -> Coefficients:
        """Solver nodes: levels [V, S] -> fields [V, S]."""
        return self._each(lambda f, x: f.at_sigma(x), sigma)

    def _each(self, ask: Callable[[Formulation, Tensor], Coefficients], x: Tensor) -> Coefficients:
        if x.ndim == 2 and len(x) != len(self):
            raise ValueError(f"{len(x)} rows for {len(self)} variants; allowed: one a variant, or one axis for all")
        records = []
        for formulation, members in zip(self._on(x.device), self._members, strict=True):
            rows = x[members] if x.ndim == 2 else x
            # A group without parameters of its own answers with one row where it was asked one.
            records.append(ask(formulation, rows).expand(len(members), x.shape[-1]))
        place = self._place.to(x.device)
        joined = (torch.cat([getattr(r, field.name) for r in records])[place] for field in fields(Coefficients))
        return Coefficients(*joined)

    def _on(self, device: torch.device) -> list[Formulation]:
        """One formulation a group, its parameters on the device."""
        if device not in self._groups:
            self._groups[device] = [
                _merged([self.formulations[i] for i in members], device) for members in self._members
            ]
        return self._groups[device]


def _kind(part: Any) -> Any:
    """What parts must share to become one: the class and all that is no real-valued parameter."""
    return type(part), tuple((k, repr(v)) for k, v in sorted(vars(part).items()) if not isinstance(v, float))


def _merged(formulations: Sequence[Formulation], device: torch.device) -> Formulation:
    merged = copy.copy(formulations[0])
    for part in PARTS:
        setattr(merged, part, _with_axis([getattr(f, part) for f in formulations], device))
    return merged


def _with_axis(parts: Sequence[Part], device: torch.device) -> Part:
    """One part whose parameters are [G, 1] where the given ones differ."""
    part = copy.copy(parts[0])
    for name, value in vars(parts[0]).items():
        values = [getattr(p, name) for p in parts]
        if isinstance(value, float) and any(v != value for v in values):
            setattr(part, name, torch.tensor(values, dtype=torch.float64, device=device)[:, None])
    return part
