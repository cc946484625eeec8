"""Images of a trained run for prompts of one's own."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from flowzoo.build import build, device_of
from flowzoo.runs.store import Run
from flowzoo.sampling.generate import Generator, batches, start_noise
from flowzoo.training.checkpoint import read_row

BATCH = 100


def sample_prompts(cfg: DictConfig, run: Run, options: SimpleNamespace, prompts: list[str]) -> Tensor:
    """uint8 images [len(prompts) * n, 3, H, W]: `options.n` of each prompt, one after another.

    Image k of every prompt starts from the same noise, whatever the run. Raises FileNotFoundError without a checkpoint.
    """
    device = device_of(cfg)
    built = build([cfg], [run.path])
    row, _ = read_row(run.path / "checkpoints" / f"{options.checkpoint}.ckpt", built.network, options.weights)
    network = built.network.holding(row[None].to(device)).to(device).requires_grad_(False)
    built.autoencoder.to(device)
    text = built.text
    text.to(device)
    generator = Generator(network, built.formulation, instantiate(cfg.solver), device, None)
    size = built.autoencoder.latent_size((built.image_size, built.image_size))
    noise = start_noise(options.seed, 0, options.n, (built.autoencoder.channels, *size))
    noise = noise.repeat(len(prompts), 1, 1, 1)
    index = torch.arange(len(prompts)).repeat_interleave(options.n).to(device)
    encoded = text.encode(prompts).to(device)
    images = []
    for first, n in batches(len(noise), BATCH):
        part = slice(first, first + n)
        made = generator(noise[part], encoded.rows(index[part]), text.null(n), options.steps, float(options.guidance))
        images.append(built.autoencoder.decode(made.latents[0]).cpu())
    return torch.cat(images)


def default_path(run: Run, options: SimpleNamespace, prompts: Sequence[str], solver: DictConfig) -> Path:
    """A PNG file in the run's samples folder. Eight hexadecimal digits stand for prompts, checkpoint and solver."""
    hashed = [list(prompts), options.checkpoint, OmegaConf.to_container(solver, resolve=True)]
    digits = sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{options.weights}_{options.steps}_steps_guidance_{options.guidance:g}_seed_{options.seed}_{digits}.png"
    return run.path / "samples" / f"prompted_{name}"
