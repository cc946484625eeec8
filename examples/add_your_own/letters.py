"""A text encoder of your own: how often each letter comes, as one token."""

from collections.abc import Sequence
from string import ascii_lowercase

import torch
from torch import Tensor


class Letters:
    """One token [26] a caption, its letters' shares, and the same as the pooled vector; nothing is learnt or moved."""

    length, dim, pooled_dim = 1, 26, 26
    fingerprint = "letters, version 1"  # of everything that the encoding depends on

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens float32 [n, 1, 26] and pooled [n, 26]; zeros for an empty caption."""
        counts = torch.tensor([[float(caption.lower().count(x)) for x in ascii_lowercase] for caption in captions])
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        return shares[:, None], shares

    def to(self, device: torch.device | str) -> "Letters":
        return self
