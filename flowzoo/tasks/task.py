"""What a training step computes, for V variants at once: the one thing that differs between what flowzoo trains."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from flowzoo.backbones.stacked import StackedBackbone

Network = Callable[..., Tensor]


class Task(Protocol):
    """A task draws a step's inputs, says the losses of V variants, and validates them.

    `begin` is called once before the first step, on every process. `inputs` may do anything; `losses` is captured as a
    CUDA graph: it must not wait for the device, draw random numbers or branch on the values of tensors.
    """

    compiled: bool  # whether torch.compile makes the kernels of `losses` on a GPU; our backbones have their own

    @property
    def waited(self) -> float:
        """Seconds spent waiting for data so far."""

    def begin(self, device: torch.device, rank: int, world: int) -> None:
        """Moves what is frozen to `device`; this process is number `rank` of `world`, which share each batch."""

    def batches(self, step: int) -> Iterable[Any]:
        """The batches from `step` on, without end."""

    def inputs(self, batch: Any, step: int) -> tuple[Any, ...]:
        """What `losses` gets: tensors on the device, alone or in tuples, of the same shapes at every step."""

    def parts(self, inputs: tuple[Any, ...], n: int) -> Iterable[tuple[Any, ...]]:
        """The inputs of n equal parts of a batch, as views; the mean of their losses is that of the batch."""

    def losses(self, network: StackedBackbone, weights: Mapping[str, Tensor], *inputs: Any) -> Tensor:
        """[V], each the mean over this process's share of the batch; `weights` by name, [V, *shape]."""

    def validate(self, network: Network) -> Tensor:
        """Losses [V, n] of held-out data; their mean over n decides which weights are best."""
