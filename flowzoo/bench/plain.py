"""The least that trains a network: forward, mean squared error, backward, AdamW, on one batch that never changes."""

from collections.abc import Callable
from contextlib import nullcontext
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn

from flowzoo.bench.stopwatch import Stopwatch
from flowzoo.build import Built, backbone_of, is_half
from flowzoo.encoders.text import Text


class Inputs:
    """Random inputs and targets of the shapes that a built network takes."""

    def __init__(self, cfg: DictConfig, built: Built, device: torch.device) -> None:
        size, batch = built.autoencoder.latent_size((built.image_size, built.image_size)), cfg.trainer.batch_size
        shape = (batch, built.autoencoder.channels, *size)
        self.z, self.y = (torch.randn(shape, device=device) for _ in range(2))
        self.label = 1000 * torch.rand(batch, device=device)
        null = built.text.null(batch)
        self.text = Text(*(tuple(torch.randn(x.shape, device=device) for x in part) for part in null))


def network_step(
    network: nn.Module,
    forward: Callable[[], Tensor],
    y: Tensor,
    cfg: DictConfig,
    device: torch.device,
    mode: str | None,
) -> Callable[[], None]:
    """A training step of `network`, whose output `forward` computes; network and loss are compiled as `mode` says."""
    network.to(device).train()
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=device.type == "cuda")
    half = is_half(cfg, device)

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


def flowzoo_step(cfg: DictConfig, built: Built, device: torch.device, mode: str | None) -> Callable[[], None]:
    """Of flowzoo's own backbone."""
    x, backbone = Inputs(cfg, built, device), backbone_of(cfg, built.autoencoder, built.text, built.image_size)
    return network_step(backbone, lambda: backbone(x.z, x.label, x.text), x.y, cfg, device, mode)


def diffusers_step(cfg: DictConfig, built: Built, device: torch.device, mode: str | None) -> Callable[[], None]:
    """Of diffusers' SD3Transformer2DModel of the same shape. ImportError where diffusers is not installed."""
    from diffusers import SD3Transformer2DModel

    x, spec = Inputs(cfg, built, device), built.text.spec
    b, size = cfg.backbone, built.image_size
    options: dict[str, Any] = {"qk_norm": "rms_norm"} if b.qk_norm else {}
    model: Any = SD3Transformer2DModel(
        sample_size=size,
        patch_size=b.patch_size,
        in_channels=x.z.shape[1],
        out_channels=x.z.shape[1],
        num_layers=b.depth,
        attention_head_dim=64,
        num_attention_heads=b.width // 64,
        caption_projection_dim=b.width,
        joint_attention_dim=spec.dims[0],
        pooled_projection_dim=sum(spec.pooled),
        pos_embed_max_size=max(size // b.patch_size, isqrt(64)),
        **options,
    )
    tokens, pooled = torch.cat(x.text.tokens, 1), torch.cat(x.text.pooled, 1)

    def forward() -> Tensor:
        return model(x.z, tokens, pooled, x.label, return_dict=False)[0]

    return network_step(model, forward, x.y, cfg, device, mode)


def taking(
    make: Callable[[DictConfig, Built, torch.device, str | None], Callable[[], None]],
    cfg: DictConfig,
    fresh: Callable[[], Built],
    device: torch.device,
    mode: str | None,
) -> Callable[[Stopwatch], None]:
    """A measurement that builds its model and its step itself, so that their memory goes with it."""
    return lambda watch: watch.run(make(cfg, fresh(), device, mode), device)
