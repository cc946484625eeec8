"""The ideal network of one-dimensional data in closed form, written from the papers' formulas, not from the records."""

from collections.abc import Callable
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor

from flowzoo.formulation import schedule, target
from flowzoo.formulation.formulation import Coefficients, Formulation

Q = torch.arange(1, 100, dtype=torch.float64) / 100
# N(1.5, 0.7^2) in the first 99 columns, 0.3 N(-1.2, 0.3^2) + 0.7 N(1.5, 0.7^2) in the last 99
GAUSSIAN, MIXTURE = slice(0, 99), slice(99, 198)
WEIGHTS = torch.tensor([[0.3], [0.7]], dtype=torch.float64).expand(2, 198)
MEANS = torch.tensor([[1.5, -1.2], [1.5, 1.5]], dtype=torch.float64).repeat_interleave(99, dim=1)
STDS = torch.tensor([[0.7, 0.3], [0.7, 0.7]], dtype=torch.float64).repeat_interleave(99, dim=1)


def ab(path: str, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """a and b of a path where b/a = sigma."""
    n = {"rf": 1 + sigma, "vp": torch.sqrt(1 + sigma**2), "ve": torch.ones_like(sigma)}[path]
    return 1 / n, torch.where(torch.isinf(sigma), 1.0, sigma / n)


def path_of(form: Formulation) -> str:
    if isinstance(form.schedule, schedule.RF):
        return "rf"
    return "ve" if form.schedule.fixed_law else "vp"


def quantiles(a: Tensor, b: Tensor) -> Tensor:
    """Of z = a x0 + b eps, [198]: .01 to .99 for each of the two data laws, by bisection."""
    std = torch.sqrt((a * STDS) ** 2 + b**2)
    low, high = torch.full((198,), -1e4, dtype=torch.float64), torch.full((198,), 1e4, dtype=torch.float64)
    for _ in range(90):
        middle = (low + high) / 2
        below = (WEIGHTS * torch.special.ndtr((middle - a * MEANS) / std)).sum(0) < Q.repeat(2)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def expected_x0(z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """E[x0 | z]."""
    variance = (a * STDS) ** 2 + b**2
    posterior = torch.softmax(WEIGHTS.log() - (z - a * MEANS) ** 2 / (2 * variance) - variance.log() / 2, dim=0)
    return (posterior * (MEANS * b**2 + a * STDS**2 * z) / variance).sum(0)


def F_of(x0: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
    # Karras et al. 2022: D = c_skip z + c_out F
    c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / torch.sqrt(sigma**2 + 0.25)
    return (x0 - c_skip * z) / c_out


def ideal_net(form: Formulation) -> Callable[[Tensor, Coefficients], Tensor]:
    """The best network for `form`, which sees c_in z as a backbone does."""
    path, goal = path_of(form), type(form.target)
    rule: dict[Any, Callable[..., Tensor]] = {
        target.Velocity: lambda x0, eps, z, a, b, sigma: eps - x0,
        target.Eps: lambda x0, eps, z, a, b, sigma: eps,
        target.V: lambda x0, eps, z, a, b, sigma: a * eps - b * x0,
        target.F: lambda x0, eps, z, a, b, sigma: F_of(x0, z, sigma),
    }

    def net(z: Tensor, c: Coefficients) -> Tensor:
        sigma = c.b / c.a
        a, b = ab(path, sigma)
        seen = c.c_in * z
        z = seen * torch.sqrt(sigma**2 + 0.25) if goal is target.F else seen
        x0 = expected_x0(z, a, b)
        return rule[goal](x0, (z - a * x0) / b, z, a, b, sigma)

    return net


def exact_start(form: Formulation, level: Tensor) -> Tensor:
    """The eps for which z = b eps at `level` are the quantiles of the noisy data."""
    a, b = ab(path_of(form), level)
    return quantiles(a, b) / b


def build(config: dict[str, Any]) -> Formulation:
    """From a config of the table of names."""
    path, sampler = config["path"], config["sampler"]
    return Formulation(instantiate(path["schedule"]), instantiate(path["target"]), instantiate(sampler))
