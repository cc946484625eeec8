"""Sampling grids: falling lists of levels sigma = b/a, from the formulation's start to exactly clean data."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flowzoo.formulation import limits
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.schedule import RF, SIGMA_MAX, karras_levels, uniform_levels


class Grid(ABC):
    """What a grid has to say; derive from it to add one."""

    name: str

    @abstractmethod
    def sigmas(self, formulation: Formulation, steps: int) -> Tensor:
        """Levels [steps + 1] before shift and clipping, the last 0."""

    def levels(self, formulation: Formulation, steps: int, shift: float = 1.0) -> Tensor:
        """float64 [steps + 1] on the CPU: the start level, ..., 0. Raises ValueError for steps < 1 or shift <= 0.

        Levels above the start are clipped to it; a solver skips the steps between equal levels.
        """
        limits.check_steps(steps)
        limits.check_shift(shift)
        sigma = self.sigmas(formulation, steps)
        # paper eq. 23 in sigma = t/(1-t): every level but the start and the end times alpha
        sigma = torch.cat([sigma[:1], shift * sigma[1:-1], sigma[-1:]])
        return sigma.clamp(max=min(formulation.sigma_start, sigma[0].item()))


class Common(Grid):
    """rf's own grid for every path: the solver's error is the same for all, and scores compare training only."""

    name = "common"

    def sigmas(self, formulation: Formulation, steps: int) -> Tensor:
        return uniform_levels(RF(), steps)


class Path(Grid):
    """Each path's usual grid: uniform t for rf, cosine and linear, Karras for the EDM family."""

    name = "path"

    def sigmas(self, formulation: Formulation, steps: int) -> Tensor:
        return formulation.schedule.levels(steps)


class UniformT(Grid):
    """Uniform in the path's own t. ValueError for EDM, whose first step would go from sigma = 80 to about 1."""

    name = "uniform_t"

    def sigmas(self, formulation: Formulation, steps: int) -> Tensor:
        if not formulation.schedule.uniform_t:
            raise ValueError(limits.no_uniform_t(type(formulation.schedule).__name__))
        return uniform_levels(formulation.schedule, steps)


class Karras(Grid):
    """Karras et al. 2022: from 80, or the path's start if that is lower, to 0.002 with rho = 7, then 0."""

    name = "karras"

    def sigmas(self, formulation: Formulation, steps: int) -> Tensor:
        return karras_levels(steps, min(SIGMA_MAX, formulation.sigma_start))


GRIDS = {grid.name: grid for grid in (Common, Path, UniformT, Karras)}
