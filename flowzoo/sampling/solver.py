"""Step rules: from z = b eps at the first level to data at level 0, by the estimates (x0hat, epshat) at each node."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from flowzoo.formulation import limits
from flowzoo.formulation.formulation import Coefficients, Formulation
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.sampling.grid import Grid

# (z, the node's record, fields of shape [], of a stack [V, 1, ..., 1]) -> output like z
Net = Callable[[Tensor, Coefficients], Tensor]
Denoiser = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # (z, index of the node) -> (x0hat, epshat)


class Sample(NamedTuple):
    x0: Tensor  # like eps; of a stack [V, *eps.shape]
    nfe: Tensor  # calls of the network, int64 [], or [V]
    path_length: Tensor  # [B], or [V, B]


class Nodes:
    """The records at the levels of a grid, as numbers that keep the dtype of the images they are multiplied with."""

    def __init__(self, records: Coefficients, like: Tensor) -> None:
        if records.t.ndim == 1:
            self._each = [records[i] for i in range(len(records.t))]  # scalars on the CPU: exact, and no kernel
        else:
            # a variant axis: [V, 1, ..., 1] for each node
            axes = (...,) + (None,) * like.ndim
            self._each = [
                records[:, i].to(device=like.device, dtype=like.dtype)[axes] for i in range(records.t.shape[-1])
            ]

    def __getitem__(self, i: int) -> Coefficients:
        return self._each[i]


class Rule(ABC):
    """What a step rule has to say; derive from it to add one."""

    name: str
    order: int

    @abstractmethod
    def evaluations(self, steps: int) -> int:
        """Calls of the network for `steps` steps between distinct levels."""

    @abstractmethod
    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Nodes, i: int) -> Tensor:
        """z at node i + 1, not the last, from z at node i and the estimates there."""

    def last_step(self, z: Tensor, x0: Tensor, eps: Tensor, nodes: Nodes, i: int) -> Tensor:
        """Data from z at node i, the last above level 0, and the estimates there: exactly the estimate of the data."""
        return x0

    def sample(self, net: Net, formulation: Formulation | StackedFormulation, eps: Tensor, levels: Tensor) -> Sample:
        """Noise `eps` [B, ...] to data of the same shape, dtype and device; `levels` as a grid gives them.

        Steps between equal levels are left out and cost nothing. `path_length` sums ||z' - z|| over the steps: for rf
        the paper's sum of ||v dt|| (Table 6), and meaningful too where t is degenerate (EDM's dt at the top is 1e-20).
        Raises ValueError for levels that rise or do not end at 0.

        With levels [V, S + 1] and a stacked formulation the V variants start from the same noise and step together:
        the network sees [V, B, ...]. A step between equal levels of one variant leaves that variant as it is and is not
        counted for it; one that is empty for all is not taken.
        """
        levels = levels.double().cpu()
        if (levels[..., -1] != 0).any() or (levels[..., 1:] > levels[..., :-1]).any():
            raise ValueError(f"sampling levels must fall to 0, got {levels.tolist()}")
        moves = (levels[..., 1:] < levels[..., :-1]).reshape(-1, levels.shape[-1] - 1)  # [1 or V, S]
        steps = moves.any(0).nonzero().flatten().tolist()
        levels, moves = levels[..., [*steps, -1]], moves[:, steps]
        records = formulation.at_sigma(levels)
        nodes = Nodes(records, eps)
        seen = nodes if levels.ndim > 1 else records.to(device=eps.device, dtype=eps.dtype)  # by the network
        calls = torch.zeros(len(moves), dtype=torch.long)
        lead = levels.shape[:-1]
        moving = moves.to(eps.device).T.reshape(len(steps), *lead, *(1,) * eps.ndim)

        def denoise(z: Tensor, i: int) -> tuple[Tensor, Tensor]:
            calls.add_(moves[:, current])
            return nodes[i].decode(z, net(z, seen[i]))

        z = nodes[0].b * eps
        length = eps.new_zeros(z.shape[: len(lead) + 1])
        last = len(steps) - 1
        for current in range(last + 1):
            x0, noise = denoise(z, current)
            if current == last:
                z_next = self.last_step(z, x0, noise, nodes, current)
            else:
                z_next = self.step(denoise, z, x0, noise, nodes, current)
            if not moves[:, current].all():
                z_next = torch.where(moving[current], z_next, z)
            length = length + (z_next - z).reshape(*length.shape, -1).norm(dim=-1)
            z = z_next
        return Sample(z, calls.reshape(lead), length)


class Recombine(Rule):
    """Euler in t for rf, in sigma for EDM, DDIM for variance preserving paths: the result does not depend on which."""

    name = "recombine"
    order = 1

    def evaluations(self, steps: int) -> int:
        return steps

    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Nodes, i: int) -> Tensor:
        return nodes[i + 1].z(x0, eps)


class Heun(Rule):
    """Trapezoid of d(z/a)/d(b/a) = epshat, in t where a = 0; the last step is Euler's."""

    name = "heun"
    order = 2

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Nodes, i: int) -> Tensor:
        here, there = nodes[i], nodes[i + 1]
        top = (here.a == 0).to(z.device)
        dt = there.t - here.t
        v = here.velocity(x0, eps)
        z_there = torch.where(top, z + dt * v, there.z(x0, eps))
        x0_there, eps_there = denoise(z_there, i + 1)
        in_t = z + dt * (v + there.velocity(x0_there, eps_there)) / 2
        # z'/a' = z/a + (sigma' - sigma)(eps + eps')/2, as a correction of the Euler step. Where a = 0 it is not taken,
        # but the gradient passes through it, and 0 times infinity would be NaN.
        sigma = here.b / torch.where(here.a == 0, 1.0, here.a)
        in_sigma = z_there + (there.b - there.a * sigma) * (eps_there - eps) / 2
        return torch.where(top, in_t, in_sigma)


class EulerT(Rule):
    """The paper's words taken literally: z' = z + dt v(z, t) in every step, the last too.

    On rf it is `Recombine`. On other paths it does not end on the last estimate of the data: Euler's step to t = 0
    misses it. To end there would be another method, and on linear at 5 steps of its usual grid five times as wrong.
    ValueError for the EDM family.
    """

    name = "euler_t"
    order = 1

    def evaluations(self, steps: int) -> int:
        return steps

    def sample(self, net: Net, formulation: Formulation | StackedFormulation, eps: Tensor, levels: Tensor) -> Sample:
        for one in formulation.formulations:
            if not one.schedule.euler_t:
                raise ValueError(limits.no_euler_t(type(one.schedule).__name__))
        return super().sample(net, formulation, eps, levels)

    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Nodes, i: int) -> Tensor:
        return self.last_step(z, x0, eps, nodes, i)

    def last_step(self, z: Tensor, x0: Tensor, eps: Tensor, nodes: Nodes, i: int) -> Tensor:
        # paper eq. 1, Euler
        return z + (nodes[i + 1].t - nodes[i].t) * nodes[i].velocity(x0, eps)


class Solver:
    """A step rule on a grid, whose inner levels are multiplied by `shift` > 0 (alpha of paper eq. 23)."""

    def __init__(self, rule: Rule, grid: Grid, shift: float = 1.0) -> None:
        limits.check_shift(shift)
        self.name, self.rule, self.grid, self.shift = rule.name, rule, grid, shift

    def levels(self, formulation: Formulation | StackedFormulation, steps: int) -> Tensor:
        """[steps + 1], or [V, steps + 1]. ValueError where the grid is not offered for a path."""
        each = [self.grid.levels(one, steps, self.shift) for one in formulation.formulations]
        return torch.stack(each) if isinstance(formulation, StackedFormulation) else each[0]

    def sample(self, net: Net, formulation: Formulation | StackedFormulation, eps: Tensor, steps: int) -> Sample:
        """Noise `eps` [B, ...] to data in `steps` steps. ValueError where rule or grid is not offered for a path."""
        return self.rule.sample(net, formulation, eps, self.levels(formulation, steps))
