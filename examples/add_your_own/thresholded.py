"""A step rule of your own: the estimate of the data is kept in a range (Saharia et al. 2022, static thresholding)."""

from torch import Tensor

from flowzoo.sampling.solver import Denoiser, Nodes, Rule


class Thresholded(Rule):
    """DDIM with x0hat cut to [-`bound`, `bound`], and the noise that then explains z. First order, one call a step."""

    name, order = "thresholded", 1

    def __init__(self, bound: float) -> None:
        if not bound > 0:
            raise ValueError(f"Thresholded's bound={bound}: allowed is a number greater than 0")
        self.bound = bound

    def evaluations(self, steps: int) -> int:
        """Calls of the network for so many steps."""
        return steps

    def step(self, denoise: Denoiser, z: Tensor, x0: Tensor, eps: Tensor, nodes: Nodes, i: int) -> Tensor:
        """z at node i + 1 from z at node i and the estimates there; all [B, ...], or [V, B, ...] of V variants."""
        x0 = x0.clamp(-self.bound, self.bound)
        return nodes[i + 1].z(x0, (z - nodes[i].a * x0) / nodes[i].b)

    def last_step(self, z: Tensor, x0: Tensor, eps: Tensor, nodes: Nodes, i: int) -> Tensor:
        """Data from the last node above level 0."""
        return x0.clamp(-self.bound, self.bound)
