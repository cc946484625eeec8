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


def sample_prompts(
    model: Model,
    prompts: Sequence[str],
    *,
    n: int = 1,
    steps: int = 50,
    guidance: float = 2.5,
    negatives: Sequence[str] | None = None,
    interval: tuple[float, float] | None = None,
    seed: int = 0,
    batch_size: int = 100,
    solver: Solver | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """uint8 images [len(prompts) * n, 3, H, W]: `n` of each prompt, one after another.

    Image k of every prompt starts from the same noise, a function of (seed, k), whatever the model and `batch_size`.
    negatives: what guidance leads away from, one for all prompts or one for each; None: no text. interval: the levels
    (low, high] of sigma at which there is guidance; None: all. solver None: recombine on the common grid. Raises
    ValueError for another number of negatives.
    """
    if negatives is not None and len(negatives) not in (1, len(prompts)):
        raise ValueError(f"{len(negatives)} negative prompts for {len(prompts)} prompts; allowed: one, or one a prompt")
    device, solver = torch.device(device), solver or Solver(Recombine(), Common())
    backbone, autoencoder, text = model.backbone.to(device), model.autoencoder.to(device), model.text
    text.to(device)
    generator = Generator(backbone.requires_grad_(False), model.formulation, solver, device, None)
    noise = start_noise(seed, 0, n, model.latent_shape).repeat(len(prompts), 1, 1, 1)
    index = torch.arange(len(prompts)).repeat_interleave(n).to(device)
    encoded = text.encode(list(prompts)).to(device).merged()
    away = (text.null(1) if negatives is None else text.encode(list(negatives)).to(device)).merged()
    images = []
    for first, count in batches(len(noise), batch_size):
        part = index[first : first + count]
        null = away.rows(part if len(away.pooled[0]) > 1 else torch.zeros_like(part))
        made = generator(noise[first : first + count], encoded.rows(part), null, steps, guidance, interval)
        images.append(autoencoder.decode(made.latents).cpu())
    return torch.cat(images)


def default_name(
    options: Mapping[str, Any], prompts: Sequence[str], negatives: Sequence[str] | None, solver: Mapping[str, Any]
) -> str:
    """Of a PNG file in the run's samples folder. Eight hexadecimal digits stand for what its words do not tell."""
    hashed = [list(prompts), negatives, options["interval"], options["checkpoint"], solver]
    digits = sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:8]
    weights, steps, guidance, seed = (options[key] for key in ("weights", "steps", "guidance", "seed"))
    return f"prompted_{weights}_{steps}_steps_guidance_{guidance:g}_seed_{seed}_{digits}.png"
