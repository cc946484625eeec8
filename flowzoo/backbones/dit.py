"""DiT (Peebles & Xie 2023) with text: one sequence of image and text tokens, one set of weights."""

import torch
from torch import Tensor, nn

from flowzoo.backbones.parts import (
    Conditioning,
    Final,
    JointBlock,
    PatchEmbedding,
    TextEmbedding,
    Tokens,
    width_and_heads,
)
from flowzoo.backbones.positions import Grid
from flowzoo.encoders.text import Text, TextSpec


class DiT(nn.Module):
    """Text tokens are appended to the image tokens and treated alike (the paper's section 5.2.3)."""

    knows_counts = True  # of equal text tokens, `Text.counts`

    def __init__(
        self,
        *,
        channels: int,
        size: tuple[int, int],
        text: TextSpec,
        patch_size: int,
        depth: int,
        width: int | None,
        heads: int | None,
        qk_norm: bool = True,
        grid: Grid | None = None,
    ) -> None:
        """size: (H, W) of z. width None: 64 * depth; heads None: width / 64. Raises ValueError if sizes do not fit."""
        super().__init__()
        width, heads = width_and_heads(depth, width, heads)
        self.condition = Conditioning(text, width)
        self.image = PatchEmbedding(channels, size, patch_size, width, grid)
        self.text = TextEmbedding(text, width)
        self.blocks = nn.ModuleList(JointBlock(1, width, heads, qk_norm) for _ in range(depth))
        self.final = Final(channels, patch_size, width)

    def forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        """z [B, C, H, W], label [B] in 0..1000 -> [B, C, H, W]."""
        c = self.condition(label, text.pooled)  # [B, D]
        image = self.image(z)  # [B, N, D]
        tokens = [Tokens(torch.cat([image, *self.text(text.tokens)], dim=1))]  # [B, N + sum L_i, D]
        key_bias = text.key_bias(image.shape[1], image)
        for block in self.blocks:
            tokens = block(tokens, c, key_bias)
        return self.final(Tokens(tokens[0].value()[:, : image.shape[1]]), c, z)
