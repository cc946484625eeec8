"""Sizes of images and latents are pairs (H, W)."""

from collections.abc import Sequence


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(H, W) of a size as configs say it: one edge of squares, or [H, W]. Raises ValueError for anything else."""
    edges = [size, size] if isinstance(size, int) else list(size) if isinstance(size, Sequence) else []
    if len(edges) != 2 or not all(isinstance(edge, int) and edge >= 1 for edge in edges):
        raise ValueError(f"image_size={size} is out of range; allowed: 1 or more pixels, or two such numbers, [H, W]")
    return edges[0], edges[1]


def patch_of(patch_size: int | None, factor: int) -> int:
    """Latents along the edge of a token: `patch_size`, or None for those of 4 pixels, one at least.

    factor: f of the autoencoder, pixels per latent.
    """
    return patch_size or max(1, 4 // factor)


def shown(size: Sequence[int]) -> str:
    """ "48 x 64", H first."""
    return " x ".join(map(str, size))
