"""Several processes that train the same rows of weights [V, P], each with its share of every batch.

Lightning starts the processes and is kept from wrapping the module: the hooks of DistributedDataParallel never fire
where gradients come from torch.autograd.grad. What the processes tell each other is here: one reduction of the gradient
and the losses a step, before the update; of sharded weights the new ones afterwards.
"""

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor


class Alone:
    """One process, which has all of every row. The interface of the others."""

    rank, world = 0, 1
    captured = True  # whether an update can be a CUDA graph

    def own(self, rows: Tensor) -> Tensor:
        """What this process keeps and updates of rows [V, P]: [V, p], contiguous."""
        return rows

    def mean(self, gradient: Tensor, losses: Tensor) -> Tensor:
        """The process's own part [V, p] of the mean gradient, from all [V, P] of each; `losses` [V] become their mean.

        What is returned lies in the same memory at every call.
        """
        return gradient

    def norms(self, gradient: Tensor, dtype: torch.dtype) -> Tensor:
        """Of the rows of the whole gradient [V], from own parts [V, p]. The same number on every process."""
        return torch.linalg.vector_norm(gradient, dim=1, dtype=dtype)

    def whole(self, own: Tensor, like: Tensor) -> Tensor:
        """All of the rows, of the shape of `like` [V, P], from own parts [V, p]. Every process takes part."""
        return own


class Replicated(Alone):
    """`trainer.strategy=ddp`: every process has all weights, moments and averages."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    def mean(self, gradient: Tensor, losses: Tensor) -> Tensor:
        for x in (gradient, losses):
            dist.all_reduce(x)
            x.div_(self.world)
        return gradient


class Sharded(Replicated):
    """`trainer.strategy=sharded`: weights, moments and averages are split over the processes, column by column.

    Of P columns, padded to a multiple of the processes, each keeps p. All have the working copy that is differentiated.
    """

    captured = False  # it ends in telling the others the new weights

    def __init__(self, rank: int, world: int) -> None:
        super().__init__(rank, world)
        self._gradient: Tensor | None = None

    def own(self, rows: Tensor) -> Tensor:
        return self._pieces(rows)[self.rank].clone()

    def _pieces(self, rows: Tensor) -> Tensor:
        """[world, V, p], contiguous."""
        variants, columns = rows.shape
        share = -(-columns // self.world)
        padded = torch.nn.functional.pad(rows, (0, share * self.world - columns))
        return padded.view(variants, self.world, share).transpose(0, 1).contiguous()

    def mean(self, gradient: Tensor, losses: Tensor) -> Tensor:
        pieces = self._pieces(gradient)
        if self._gradient is None:
            self._gradient = torch.empty_like(pieces[0])
        dist.reduce_scatter_tensor(self._gradient.view(-1), pieces.view(-1))
        dist.all_reduce(losses)
        losses.div_(self.world)
        return self._gradient.div_(self.world)

    def norms(self, gradient: Tensor, dtype: torch.dtype) -> Tensor:
        squares = torch.linalg.vector_norm(gradient, dim=1, dtype=dtype).square()
        dist.all_reduce(squares)
        return squares.sqrt()

    def whole(self, own: Tensor, like: Tensor) -> Tensor:
        pieces = own.new_empty(self.world, *own.shape)
        dist.all_gather_into_tensor(pieces.view(-1), own.contiguous().view(-1))
        return pieces.transpose(0, 1).reshape(len(own), -1)[:, : like.shape[1]]


class Processes(DDPStrategy):
    """Lightning's, which starts the processes and connects them, and leaves the module as it is."""

    def configure_ddp(self) -> None:
        """There is nothing to wrap: `Program` reduces its gradient itself."""


def strategy_of(processes: int) -> str | Processes:
    """What Lightning's Trainer is given for so many processes."""
    return "auto" if processes == 1 else Processes()


def part_of(name: str, rank: int, world: int) -> Alone:
    """The part that process number `rank` of `world` has, by `trainer.strategy`."""
    if world == 1:
        return Alone()
    return Sharded(rank, world) if name == "sharded" else Replicated(rank, world)
