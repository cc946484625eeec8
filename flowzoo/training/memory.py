"""How many variants fit into memory at once."""

import copy
from dataclasses import fields

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.func import functional_call

from flowzoo.build import Built, device_of, is_half
from flowzoo.data.memory import free_memory
from flowzoo.encoders.text import Text
from flowzoo.formulation.formulation import Coefficients
from flowzoo.tasks.formulation import formulation_losses
from flowzoo.training.optimizer import Optimizer, RowAdamW
from flowzoo.training.program import differentiate

SHARE = 0.85  # of the free memory: the rest is for data, fragments and the shared batch
# Copies of the weights that a step holds: weights, two moments, average, gradient, its clipped copy, and three
# intermediates of the update.
COPIES = 9


def limit_of(cfg: DictConfig, built: Built) -> int:
    """The largest stack of this kind for the free memory; at least 1.

    By an estimate that is too large where the network is compiled; where it leaves no room for all, a step of two
    variants is measured on the GPU.
    """
    device = device_of(cfg)
    room = SHARE * free_memory(device)
    estimate = estimated(cfg, built)
    if room >= estimate * len(built.network) or device.type != "cuda":
        return max(1, int(room / estimate))
    return max(1, int(room / measured(cfg, built, device)))


def estimated(cfg: DictConfig, built: Built) -> float:
    """Bytes a variant: copies of the weights, and what the forward pass of a batch keeps for the backward pass."""
    one = built.network.flat[0].detach().clone()
    z, label, text = _inputs(cfg, built, torch.device("cpu"), batch=1)
    saved: dict[int, int] = {}  # bytes by address; of one sample

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() != one.untyped_storage().data_ptr():
            saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    weights = {name: w.requires_grad_() for name, w in built.network.cut(one).items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = functional_call(built.network.skeleton, weights, (z, label, text))
    half = is_half(cfg, device_of(cfg))
    activations = sum(saved.values()) * (0.5 if half else 1.0) * cfg.trainer.batch_size
    del out  # until here it held what was saved, so that no address came twice
    return COPIES * one.nbytes + activations


def measured(cfg: DictConfig, built: Built, device: torch.device, variants: int = 2) -> float:
    """Bytes a variant at the peak of two real steps of a small stack on the GPU."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    stack = copy.deepcopy(built.network.holding(built.network.flat[:1].detach().repeat(variants, 1))).to(device)
    rate = Optimizer(lr=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, warmup_steps=0, decay_to=1.0)
    adamw = RowAdamW(stack.flat.detach(), [rate] * variants, 2)
    z, label, text = _inputs(cfg, built, device, cfg.trainer.batch_size)
    records = [label.expand(variants, *label.shape) for _ in fields(Coefficients)]
    ones = torch.ones(variants, device=device)
    half = is_half(cfg, device)
    rounded = stack.flat.detach().bfloat16() if half else None
    gradient = torch.empty_like(stack.flat if rounded is None else rounded)
    for _ in range(2):
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            weights = stack.flat.detach() if rounded is None else rounded
            differentiate(formulation_losses, stack, weights, gradient, z[None], z[None], text, *records)
        adamw.update(gradient, ones, ones > 0, rounded)
    # The average; and at a validation it again without its bias, and the weights that it takes the place of.
    averages = 3 * stack.flat.nbytes
    return (torch.cuda.max_memory_allocated(device) - before + averages) / variants


def _inputs(cfg: DictConfig, built: Built, device: torch.device, batch: int) -> tuple[Tensor, Tensor, Text]:
    size = built.autoencoder.latent_size((built.image_size, built.image_size))
    dtype = built.network.flat.dtype
    z = torch.zeros(batch, built.autoencoder.channels, *size, device=device, dtype=dtype)
    return z, torch.zeros(batch, device=device), built.text.null(batch).to(device, dtype)
