"""Images of a trained run for prompts of one's own."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from flowzoo.job import Model
from flowzoo.sampling.generate import Generator, batches, start_noise
from flowzoo.sampling.grid import Common
from flowzoo.sampling.solver import Recombine, Solver

BATCH = 100


def sample_prompts(
    model: Model,
    prompts: Sequence[str],
    *,
    n: int = 1,
    steps: int = 50,
    guidance: float = 2.5,
    seed: int = 0,
    solver: Solver | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """uint8 images [len(prompts) * n, 3, H, W]: `n` of each prompt, one after another.

    Image k of every prompt starts from the same noise, whatever the model. solver None: recombine on the common grid.
    """
    device, solver = torch.device(device), solver or Solver(Recombine(), Common())
    backbone, autoencoder, text = model.backbone.to(device), model.autoencoder.to(device), model.text
    text.to(device)
    generator = Generator(backbone.requires_grad_(False), model.formulation, solver, device, None)
    noise = start_noise(seed, 0, n, model.latent_shape).repeat(len(prompts), 1, 1, 1)
    index = torch.arange(len(prompts)).repeat_interleave(n).to(device)
    encoded = text.encode(list(prompts)).to(device).merged()
    images = []
    for first, count in batches(len(noise), BATCH):
        part = slice(first, first + count)
        made = generator(noise[part], encoded.rows(index[part]), text.null(count).merged(), steps, guidance)
        images.append(autoencoder.decode(made.latents).cpu())
    return torch.cat(images)


def default_name(options: Mapping[str, Any], prompts: Sequence[str], solver: Mapping[str, Any]) -> str:
    """Of a PNG file in the run's samples folder. Eight hexadecimal digits stand for prompts, checkpoint and solver."""
    hashed = [list(prompts), options["checkpoint"], solver]
    digits = sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:8]
    weights, steps, guidance, seed = (options[key] for key in ("weights", "steps", "guidance", "seed"))
    return f"prompted_{weights}_{steps}_steps_guidance_{guidance:g}_seed_{seed}_{digits}.png"
