"""CrossDiT: DiT whose image tokens look at the text by cross-attention (as PixArt-alpha, Chen et al. 2023)."""

import torch
from torch import Tensor, nn

from flowzoo.backbones.parts import (
    KV,
    Conditioning,
    Final,
    PatchEmbedding,
    Q,
    Stream,
    TextEmbedding,
    Tokens,
    Updated,
    attend,
    attend_jointly,
    linear,
    norm,
    width_and_heads,
    zeroed,
)
from flowzoo.backbones.positions import Grid
from flowzoo.encoders.text import Text, TextSpec


class CrossBlock(Stream):
    """Self-attention, cross-attention, MLP. Cross-attention has no gate: its output layer starts at 0 instead."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__(width, heads, qk_norm)
        self.cross_q = Q(width, heads, qk_norm)
        self.cross_kv = KV(width, heads, qk_norm)
        self.cross_out = zeroed(linear(width, width))

    def forward(self, tokens: Tokens, y: Tensor, c: Tensor, key_bias: Tensor | None = None) -> Tokens:
        """tokens: image [B, N, D]; y [B, L, D] text, c [B, D]; key_bias [1, L] -> image."""
        shift, scale, gate, *of_mlp = self.modulation(c)
        x, h = tokens.normed(shift, scale)
        (attended,) = attend_jointly([self.qkv], [h])
        zero, one = torch.zeros_like(gate), torch.ones_like(gate)
        x, h = Updated(x, attended, self.out, gate).normed(zero, zero)
        (q,), (k, v) = self.cross_q(h), self.cross_kv(y)
        crossed = attend(q, k, v, key_bias)
        return self.feed_forward(Updated(x, crossed, self.cross_out, one), *of_mlp)


class CrossDiT(nn.Module):
    """The text tokens stay as they are embedded; only image tokens are updated."""

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
        self.blocks = nn.ModuleList(CrossBlock(width, heads, qk_norm) for _ in range(depth))
        self.final = Final(channels, patch_size, width)

    def forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        """z [B, C, H, W], label [B] in 0..1000 -> [B, C, H, W]."""
        c = self.condition(label, text.pooled)  # [B, D]
        tokens = Tokens(self.image(z))  # [B, N, D]
        y = norm(torch.cat(self.text(text.tokens), dim=1))  # [B, sum L_i, D]
        key_bias = text.key_bias(0, y)
        for block in self.blocks:
            tokens = block(tokens, y, c, key_bias)
        return self.final(tokens, c, z)
