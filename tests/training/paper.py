"""The paper's 61 formulations, typed from its equations and from nothing of flowzoo.

Each is a function from u [B] in (0, 1), float64, to a `Row`. It serves as the reference for flowzoo's own.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SIGMA_DATA = 0.5


class Row(NamedTuple):
    """Of each sample, [B] float64: z = a x0 + b eps; the network sees c_in z and `label` and is to say p x0 + q eps."""

    a: Tensor
    b: Tensor
    p: Tensor
    q: Tensor
    c_in: Tensor
    label: Tensor


Formulation = Callable[[Tensor], Row]


def normal(u: Tensor) -> Tensor:
    """The standard normal's quantile."""
    return math.sqrt(2) * torch.erfinv(2 * u - 1)


def rf(law: Callable[[Tensor], Tensor]) -> Formulation:
    def row(u: Tensor) -> Row:
        t = law(u)
        one = torch.ones_like(t)
        # eqs. 10 and 13: the network says eps - x0
        return Row(1 - t, t, -one, one, one, 1000 * t)

    return row


def lognorm(m: float, s: float) -> Formulation:
    # eq. 19: logit t is normal
    return rf(lambda u: 1 / (1 + torch.exp(-(m + s * normal(u)))))


def mode(s: float) -> Formulation:
    # eq. 20 falls in u, so it is asked at 1 - u
    f = lambda u: 1 - u - s * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)  # noqa: E731
    return rf(lambda u: f(1 - u))


def cosmap(u: Tensor) -> Tensor:
    # eq. 21
    return 1 - 1 / (torch.tan(math.pi / 2 * u) + 1)


def variance_preserving(ab: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], target: str) -> Formulation:
    """`ab` says (t, a, b) of u; the target is the noise, or v = a eps - b x0 (Salimans and Ho 2022)."""

    def row(u: Tensor) -> Row:
        t, a, b = ab(u)
        one = torch.ones_like(t)
        p, q = (-b, a) if target == "v" else (0 * one, one)
        return Row(a, b, p, q, one, 1000 * t)

    return row


def cosine(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return u, torch.cos(math.pi / 2 * u), torch.sin(math.pi / 2 * u)


def linear(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latent diffusion's thousand levels; t is rounded up to one."""
    betas = np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2
    log_abar = torch.from_numpy(np.cumsum(np.log1p(-betas)))
    n = torch.ceil(1000 * u).long()
    abar = log_abar[n - 1]
    return n.double() / 1000, torch.exp(abar / 2), torch.sqrt(-torch.expm1(abar))


def edm(law: Callable[[Tensor], Tensor]) -> Formulation:
    """`law` says sigma of u. The label is ours: linear in ln sigma, 0 at 0.002 and 1000 at 80."""

    def row(u: Tensor) -> Row:
        sigma, sd = law(u), SIGMA_DATA
        # Karras et al. 2022, table 1: D = c_skip z + c_out F(c_in z)
        c_skip = sd**2 / (sigma**2 + sd**2)
        c_out = sigma * sd / torch.sqrt(sigma**2 + sd**2)
        c_in = 1 / torch.sqrt(sigma**2 + sd**2)
        # eq. 8: F is to be (x0 - c_skip (x0 + sigma eps)) / c_out
        label = 1000 * torch.log(sigma / 0.002) / math.log(80 / 0.002)
        return Row(torch.ones_like(sigma), sigma, (1 - c_skip) / c_out, -c_skip * sigma / c_out, c_in, label)

    return row


# sec. 5.1: 4 + 1 + 8 + 30 + 1 + 15 + 2; mode's seven are equally spaced, s = 0 is rf, 1.0 was added
PAPER: dict[str, Formulation] = {
    **{f"{y}/linear": variance_preserving(linear, y) for y in ("eps", "v")},
    **{f"{y}/cos": variance_preserving(cosine, y) for y in ("eps", "v")},
    "rf": rf(lambda u: u),
    **{f"rf/mode({s:.2f})": mode(s) for s in (*(-1 + 2.75 * k / 6 for k in range(7)), 1.0)},
    **{
        f"rf/lognorm({m:.2f},{s:.2f})": lognorm(m, s)
        for m in (-1, -0.5, 0, 0.5, 1)
        for s in (0.2, 0.6, 1, 1.4, 1.8, 2.2)
    },
    "rf/cosmap": rf(cosmap),
    **{
        f"edm({m:.2f},{s:.2f})": edm(lambda u, m=m, s=s: torch.exp(m + s * normal(u)))
        for m in (-1.2, -0.6, 0, 0.6, 1.2)
        for s in (0.6, 1.2, 1.8)
    },
    "edm/rf": edm(lambda u: u / (1 - u)),
    "edm/cos": edm(lambda u: torch.tan(math.pi / 2 * u)),
}
