"""A backbone of your own: a plain convolutional network whose features are scaled and shifted by time and text."""

import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.backbones.parts import Conditioning, TextEmbedding, zeroed
from flowzoo.encoders.text import Text, TextSpec


class Block(nn.Module):
    """FiLM (Perez et al. 2018), convolution, and a residual connection that adds 0 until it is trained."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width, affine=False)
        self.film = nn.Linear(width, 2 * width)
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.out = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.film(c)[..., None, None].chunk(2, dim=1)
        return x + self.out(F.silu(self.mix(self.norm(x) * (1 + scale) + shift)))


class FiLM(nn.Module):
    """Sees captions as the mean of their tokens; `heads` are the groups of its 3x3 convolutions.

    Raises ValueError unless `patch_size` divides height and width, and `heads` the width.
    """

    def __init__(
        self,
        *,
        channels: int,
        size: tuple[int, int],
        text: TextSpec,
        patch_size: int,
        depth: int,
        width: int,
        heads: int,
    ) -> None:
        super().__init__()
        if any(edge % patch_size for edge in size):
            raise ValueError(f"FiLM's patch_size={patch_size}: allowed is a divisor of both of size={tuple(size)}")
        self.patch_size = patch_size
        self.condition = Conditioning(text, width)
        self.text = TextEmbedding(text, width)
        self.first = nn.Conv2d(channels * patch_size**2, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.last = zeroed(nn.Conv2d(width, channels * patch_size**2, 1))

    def forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        """z [B, C, H, W], label [B] in 0..1000 -> [B, C, H, W]."""
        c = self.condition(label, text.pooled)  # [B, D]
        for tokens in self.text(text.tokens):  # [B, L_i, D]
            c = c + tokens.mean(dim=1)
        x = self.first(F.pixel_unshuffle(z, self.patch_size))  # [B, D, H/p, W/p]
        for block in self.blocks:
            x = block(x, c)
        return F.pixel_shuffle(self.last(x), self.patch_size)
