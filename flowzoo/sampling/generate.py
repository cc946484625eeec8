"""Images from a backbone, a formulation and a solver, in batches of one fixed size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowzoo.captured import Captured
from flowzoo.encoders.text import Text, understood
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.randomness import generator
from flowzoo.sampling.guidance import guided
from flowzoo.sampling.solver import Solver

BLOCK = 100  # samples a random stream: start noise depends on (seed, index) alone, not on the batch size


def start_noise(seed: int, first: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal start noise of samples `first` to `first + count - 1`, [count, *shape], drawn on the CPU."""
    blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
    noise = torch.cat([torch.randn((BLOCK, *shape), generator=generator(seed, block, "start")) for block in blocks])
    offset = first - blocks[0] * BLOCK
    return noise[offset : offset + count]


@dataclass(frozen=True)
class Generated:
    latents: Tensor  # [n, C, H, W], of a stack [V, n, C, H, W]
    path_length: Tensor  # [n], of a stack [V, n]
    nfe: Tensor  # int64 [], of a stack [V]


class Generator:
    """Samples a backbone, or a stack with its stacked formulation: every variant from the same noise and text.

    As CUDA graphs, one for each length of text, and under autocast on a GPU. The backbone's weights may change between
    calls.
    """

    def __init__(
        self,
        backbone: nn.Module,
        formulation: Formulation | StackedFormulation,
        solver: Solver,
        device: torch.device,
        compile_mode: str | None,
    ) -> None:
        self.formulation, self.solver, self.device = formulation, solver, device
        self.dtype = torch.promote_types(next(backbone.parameters()).dtype, torch.float32)
        self._backbone = backbone
        backbone.eval()
        network: Callable[[Tensor, Tensor, Text], Tensor] = backbone.forward
        if compile_mode == "reduce-overhead":
            network = Captured(network)
        elif compile_mode:
            network = torch.compile(network, mode=compile_mode, dynamic=False)
        self._network = network

    def _forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            out = self._network(z, label, text)
        return out.to(z.dtype, copy=True)  # the next replay of a CUDA graph overwrites its output

    @torch.no_grad()
    def __call__(
        self,
        noise: Tensor,
        text: Text,
        null: Text,
        steps: int,
        scale: float,
        interval: tuple[float, float] | None = None,
    ) -> Generated:
        """`noise` [n, C, H, W] is the start noise; every sample gets `steps` steps at guidance `scale`.

        `interval`: the levels (low, high] of sigma at which there is guidance; None: all.
        """
        lead = 2 if isinstance(self.formulation, StackedFormulation) else 1
        text, null = (understood(self._backbone, told) for told in (text, null))
        net = guided(self._forward, text.to(self.dtype), null.to(self.dtype), scale, lead, interval)
        sample = self.solver.sample(net, self.formulation, noise.to(self.device, self.dtype), steps)
        return Generated(sample.x0, sample.path_length, sample.nfe)


def batches(count: int, size: int) -> Iterator[tuple[int, int]]:
    """(first, length) of every batch."""
    for first in range(0, count, size):
        yield first, min(size, count - first)
