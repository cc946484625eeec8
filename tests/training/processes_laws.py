"""python processes_laws.py STRATEGY STORE RANK: one of the three processes in which test_processes.py looks."""

import sys

import torch
import torch.distributed as dist

from flowzoo.training.processes import part_of

WORLD = 3


def laws(strategy: str, store: str, rank: int) -> None:
    """The mean gradient, its norms, and whole rows from parts; 10 columns do not divide by 3."""
    dist.init_process_group("gloo", store=dist.FileStore(store, WORLD), rank=rank, world_size=WORLD)
    gen = torch.Generator().manual_seed(0)
    every = torch.randn(WORLD, 2, 10, generator=gen, dtype=torch.float64)
    losses = torch.tensor([float(rank), 1.0], dtype=torch.float64)
    part, rows = part_of(strategy, rank, WORLD), every[0]
    own = part.mean(every[rank].clone(), losses)
    torch.testing.assert_close(losses, torch.tensor([1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(part.whole(own, rows), every.mean(0))
    torch.testing.assert_close(part.norms(own, torch.float64), every.mean(0).norm(dim=1))
    assert torch.equal(part.whole(part.own(rows), rows), rows)
    nan = torch.tensor([float("nan") if rank == 1 else 0.0, 2.0], dtype=torch.float64)
    part.mean(every[rank].clone(), nan)
    assert nan.isnan().tolist() == [True, False]  # on every process
    dist.destroy_process_group()


if __name__ == "__main__":
    laws(sys.argv[1], sys.argv[2], int(sys.argv[3]))
