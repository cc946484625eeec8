"""Step rules: from z = b eps at the first level to clean data at level 0, by (x0hat, epshat) at each node."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from flowzoo.formulation import limits
from flowzoo.formulation.formulation import Coefficients, Formulation
from flowzoo.sampling.grid import Grid

Net = Callable[[Tensor, Coefficients], Tensor]  # (z, the node's record, fields of shape []) -> output like z
Denoiser = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # (z, index of the node) -> (x0hat, epshat)


class Sample(NamedTuple):
    x0: Tensor  # like eps
    nfe: int  # calls of the network
    path_length: Tensor  # [B]


class Rule(ABC):
    """What a step rule has to say; derive from it to add one."""

    name: str
    order: int

    @abstractmethod
    def evaluations(self, steps: int) -> int:
        """Calls of the network for `steps` steps between distinct levels."""

    @abstractmethod
    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Coefficients, i: int) -> Tensor:
        """z at node i + 1, not the last, from z at node i and the estimates there."""

    def sample(self, net: Net, formulation: Formulation, eps: Tensor, levels: Tensor) -> Sample:
        """Noise `eps` [B, ...] to data of the same shape, dtype and device; `levels` as a grid gives them.

        Steps between equal levels are left out and cost nothing. The last step is z' = x0hat for every rule: it ends at
        exactly clean data. `path_length` sums ||z' - z|| over the steps: for rf the paper's sum of ||v dt|| (Table 6),
        and meaningful too where t is degenerate (EDM's dt at the top is 1e-20). Raises ValueError for levels that rise
        or do not end at 0.
        """
        levels = levels.double().cpu()
        if levels[-1] != 0 or (levels[1:] > levels[:-1]).any():
            raise ValueError(f"sampling levels must fall to 0, got {levels.tolist()}")
        levels = torch.unique_consecutive(levels)
        # float64 scalars on the CPU for the arithmetic below (its results keep eps's dtype), one copy for the network
        nodes = formulation.at_sigma(levels)
        seen = nodes.to(device=eps.device, dtype=eps.dtype)
        calls = 0

        def denoise(z: Tensor, i: int) -> tuple[Tensor, Tensor]:
            nonlocal calls
            calls += 1
            return nodes[i].decode(z, net(z, seen[i]))

        z = nodes.b[0] * eps
        length = eps.new_zeros(eps.shape[0])
        last = len(levels) - 2
        for i in range(last + 1):
            x0, noise = denoise(z, i)
            z_next = x0 if i == last else self.step(denoise, z, x0, noise, nodes, i)
            length = length + (z_next - z).reshape(len(z), -1).norm(dim=1)
            z = z_next
        return Sample(z, calls, length)


class Recombine(Rule):
    """Euler in t for rf, in sigma for EDM, DDIM for variance preserving paths: the result does not depend on which."""

    name = "recombine"
    order = 1

    def evaluations(self, steps: int) -> int:
        return steps

    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Coefficients, i: int) -> Tensor:
        return nodes[i + 1].z(x0, eps)


class Heun(Rule):
    """Trapezoid of d(z/a)/d(b/a) = epshat, in t where a = 0; the last step is Euler's."""

    name = "heun"
    order = 2

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Coefficients, i: int) -> Tensor:
        here, there = nodes[i], nodes[i + 1]
        if here.a == 0:
            dt = there.t - here.t
            v = here.velocity(x0, eps)
            x0_there, eps_there = denoise(z + dt * v, i + 1)
            return z + dt * (v + there.velocity(x0_there, eps_there)) / 2
        z_there = there.z(x0, eps)
        _, eps_there = denoise(z_there, i + 1)
        # z'/a' = z/a + (sigma' - sigma)(eps + eps')/2, as a correction of the Euler step
        return z_there + (there.b - there.a * here.b / here.a) * (eps_there - eps) / 2


class EulerT(Rule):
    """The paper's words taken literally, z' = z + dt v(z, t). ValueError for the EDM family."""

    name = "euler_t"
    order = 1

    def evaluations(self, steps: int) -> int:
        return steps

    def sample(self, net: Net, formulation: Formulation, eps: Tensor, levels: Tensor) -> Sample:
        if not formulation.schedule.euler_t:
            raise ValueError(limits.no_euler_t(type(formulation.schedule).__name__))
        return super().sample(net, formulation, eps, levels)

    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Coefficients, i: int) -> Tensor:
        # paper eq. 1, Euler
        return z + (nodes.t[i + 1] - nodes.t[i]) * nodes[i].velocity(x0, eps)


class Solver:
    """A step rule on a grid, whose inner levels are multiplied by `shift` > 0 (alpha of paper eq. 23)."""

    def __init__(self, rule: Rule, grid: Grid, shift: float = 1.0) -> None:
        limits.check_shift(shift)
        self.name, self.rule, self.grid, self.shift = rule.name, rule, grid, shift

    def sample(self, net: Net, formulation: Formulation, eps: Tensor, steps: int) -> Sample:
        """Noise `eps` [B, ...] to data in `steps` steps. ValueError where rule or grid is not offered for the path."""
        return self.rule.sample(net, formulation, eps, self.grid.levels(formulation, steps, self.shift))
