"""How many variants fit into memory at once."""

import copy
from dataclasses import fields

import torch
from torch import Tensor
from torch.func import functional_call

from flowzoo.data.memory import free_memory
from flowzoo.encoders.text import Text
from flowzoo.formulation.formulation import Coefficients
from flowzoo.job import Stack
from flowzoo.tasks.formulation import formulation_losses
from flowzoo.training.program import differentiate
from flowzoo.training.rate import Linear
from flowzoo.training.updates import updates_of

SHARE = 0.85  # of the free memory: the rest is for data, fragments and the shared batch
# Copies of the weights that a step holds: weights, two moments, average, gradient, its clipped copy, and three
# intermediates of the update.
COPIES = 9


def limit_of(stack: Stack) -> int:
    """The largest stack of this kind for the free memory; at least 1.

    By an estimate that is too large where the network is compiled; where it leaves no room for all, a step of two
    variants is measured on the GPU.
    """
    device = stack.first.loop.device
    room = SHARE * free_memory(device)
    estimate = estimated(stack)
    if room >= estimate * len(stack) or device.type != "cuda":
        return max(1, int(room / estimate))
    return max(1, int(room / measured(stack, device)))


def estimated(stack: Stack) -> float:
    """Bytes a variant: copies of the weights, and what the forward pass of a batch keeps for the backward pass."""
    network, loop = stack.network, stack.first.loop
    one = network.flat[0].detach().clone()
    z, label, text = _inputs(stack, torch.device("cpu"), batch=1)
    saved: dict[int, int] = {}  # bytes by address; of one sample

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() != one.untyped_storage().data_ptr():
            saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    weights = {name: w.requires_grad_() for name, w in network.cut(one).items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = functional_call(network.skeleton, weights, (z, label, text))
    activations = sum(saved.values()) * (0.5 if loop.is_half else 1.0) * loop.at_once
    del out  # until here it held what was saved, so that no address came twice
    return (COPIES + (loop.accumulate > 1)) * one.nbytes + activations


def measured(stack: Stack, device: torch.device, variants: int = 2) -> float:
    """Bytes a variant at the peak of two real steps of a small stack on the GPU."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    rows = stack.network.flat[:1].detach().repeat(variants, 1)
    network, loop = copy.deepcopy(stack.network.holding(rows)).to(device), stack.first.loop
    optimizers, rate = [stack.first.optimizer] * variants, Linear(warmup_steps=0)
    updates = updates_of(network.flat.detach(), optimizers, rate, 2, network.cut)
    z, label, text = _inputs(stack, device, loop.at_once)
    records = [label.expand(variants, *label.shape) for _ in fields(Coefficients)]
    ones = torch.ones(variants, device=device)
    rounded = network.flat.detach().bfloat16() if loop.is_half else None
    gradient = torch.empty_like(network.flat if rounded is None else rounded)
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16, enabled=loop.is_half):
            weights = network.flat.detach() if rounded is None else rounded
            differentiate(formulation_losses, network, weights, gradient, z[None], z[None], text, *records)
        updates.update(gradient, ones, ones > 0, rounded)
    # The average; and at a validation it again without its bias, and the weights that it takes the place of.
    averages = 3 * network.flat.nbytes
    return (torch.cuda.max_memory_allocated(device) - before + averages) / variants


def _inputs(stack: Stack, device: torch.device, batch: int) -> tuple[Tensor, Tensor, Text]:
    model, dtype = stack.model, stack.network.flat.dtype
    z = torch.zeros(batch, *model.latent_shape, device=device, dtype=dtype)
    return z, torch.zeros(batch, device=device), model.text.null(batch).to(device, dtype)
