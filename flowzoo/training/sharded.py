"""One large run over several devices, each with a share of every weight: `trainer.strategy=fsdp`, which is FSDP2.

Parameters become DTensors under their plain names, and so do EMA's shadows. Checkpoints hold whole tensors, as those of
a run alone: whoever saves has every process gather them.
"""

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


class Sharded(ModelParallelStrategy):
    """Lightning's, with weights and batch split over all processes; its checkpoints are single files."""

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()


def strategy_of(name: str) -> str | Strategy:
    """What Lightning's Trainer is given for `trainer.strategy`; its own `fsdp` is the older one, for GPUs alone."""
    return Sharded() if name == "fsdp" else name


def shard(backbone: nn.Module, mesh: DeviceMesh) -> None:
    """Splits every parameter over `mesh`; the weights of a block are gathered for as long as it computes."""
    for blocks in backbone.children():
        if isinstance(blocks, nn.ModuleList):
            for block in blocks:
                fully_shard(block, mesh=mesh)
    # also after forward, so that `parameters()` are always the shards
    fully_shard(backbone, mesh=mesh, reshard_after_forward=True)


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, which every process has, split as `other` is."""
    if isinstance(other, DTensor):
        return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
    return tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor, split or not. Every process takes part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
