"""Randomness is a function of (seed, step, purpose): paired comparison, exact resume, and seed 0 is legal."""

from hashlib import blake2b

import torch


def word(*key: object) -> int:
    """A 63-bit integer that depends on nothing but `key`."""
    digest = blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The stream for one purpose at one step. CPU and CUDA streams differ; each is reproducible on its own kind."""
    return torch.Generator(device).manual_seed(word(seed, step, purpose))


def uniform(shape: tuple[int, ...], gen: torch.Generator) -> torch.Tensor:
    """Draws strictly inside (0, 1), float64, as (k + 1/2) / 2^24.

    An exact 0 (once in 2^24 draws of an ordinary generator) would make EDM's sigma 0, and every EDM variant would
    diverge together.
    """
    k = torch.randint(0, 1 << 24, shape, generator=gen, device=gen.device)
    return (k.double() + 0.5) / (1 << 24)
