"""The least that trains a network: forward, mean squared error, backward, AdamW, on one batch that never changes."""

from collections.abc import Callable
from contextlib import nullcontext
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.bench.stopwatch import Stopwatch
from flowzoo.encoders.text import Text
from flowzoo.job import Job


class Inputs:
    """Random inputs and targets of the shapes that a built network takes."""

    def __init__(self, job: Job, device: torch.device) -> None:
        batch = job.loop.batch_size
        shape = (batch, *job.model.latent_shape)
        self.z, self.y = (torch.randn(shape, device=device) for _ in range(2))
        self.label = 1000 * torch.rand(batch, device=device)
        null = job.model.text.null(batch)
        tokens, pooled = (
            tuple(torch.randn(x.shape, device=device) for x in part) for part in (null.tokens, null.pooled)
        )
        self.text = Text(tokens, pooled)


def network_step(
    network: nn.Module,
    forward: Callable[[], Tensor],
    y: Tensor,
    half: bool,
    device: torch.device,
    mode: str | None,
) -> Callable[[], None]:
    """A training step of `network`, whose output `forward` computes; network and loss are compiled as `mode` says."""
    network.to(device).train()
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device.type == "cuda")

    def loss_of() -> Tensor:
        return F.mse_loss(forward().float(), y)

    compiled = torch.compile(loss_of, mode=mode, dynamic=False) if mode else loss_of

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            loss = compiled()
        adamw.zero_grad()
        loss.backward()
        adamw.step()

    return step


def flowzoo_step(job: Job, device: torch.device, mode: str | None) -> Callable[[], None]:
    """Of flowzoo's own backbone."""
    x, backbone = Inputs(job, device), job.model.backbone
    return network_step(backbone, lambda: backbone(x.z, x.label, x.text), x.y, job.loop.is_half, device, mode)


def diffusers_step(job: Job, device: torch.device, mode: str | None) -> Callable[[], None]:
    """Of diffusers' SD3Transformer2DModel of the same shape. ImportError where diffusers is not installed."""
    from diffusers import SD3Transformer2DModel

    assert job.config is not None
    x, spec, b = Inputs(job, device), job.model.text.spec, job.config["backbone"]
    size, width = x.z.shape[-1], b["width"]
    options: dict[str, Any] = {"qk_norm": "rms_norm"} if b["qk_norm"] else {}
    model: Any = SD3Transformer2DModel(
        sample_size=size,
        patch_size=b["patch_size"],
        in_channels=x.z.shape[1],
        out_channels=x.z.shape[1],
        num_layers=b["depth"],
        attention_head_dim=64,
        num_attention_heads=width // 64,
        caption_projection_dim=width,
        joint_attention_dim=spec.dims[0],
        pooled_projection_dim=sum(spec.pooled),
        pos_embed_max_size=max(size // b["patch_size"], isqrt(64)),
        **options,
    )
    tokens, pooled = torch.cat(x.text.tokens, 1), torch.cat(x.text.pooled, 1)

    def forward() -> Tensor:
        return model(x.z, tokens, pooled, x.label, return_dict=False)[0]

    return network_step(model, forward, x.y, job.loop.is_half, device, mode)


def taking(
    make: Callable[[Job, torch.device, str | None], Callable[[], None]],
    fresh: Callable[[], Job],
    device: torch.device,
    mode: str | None,
) -> Callable[[Stopwatch], None]:
    """A measurement that builds its model and its step itself, so that their memory goes with it."""
    return lambda watch: watch.run(make(fresh(), device, mode), device)
