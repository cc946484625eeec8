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
    attend,
    attend_jointly,
    linear,
    modulate,
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

    def forward(self, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """x [B, N, D] image, y [B, L, D] text, c [B, D] -> as x."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(c)
        (attended,) = attend_jointly([self.qkv], [modulate(x, shift, scale)])
        x = x + gate * self.out(attended)
        x = x + self.cross_out(attend(*self.cross_q(norm(x)), *self.cross_kv(y)))
        return x + gate_mlp * self.mlp(modulate(x, shift_mlp, scale_mlp))


class CrossDiT(nn.Module):
    """The text tokens stay as they are embedded; only image tokens are updated."""

    def __init__(
        self,
        *,
        channels: int,
        image_size: int,
        text: TextSpec,
        patch_size: int,
        depth: int,
        width: int | None,
        heads: int | None,
        qk_norm: bool = True,
        grid: Grid | None = None,
    ) -> None:
        """width None: 64 * depth; heads None: width / 64. Raises ValueError if sizes do not fit."""
        super().__init__()
        width, heads = width_and_heads(depth, width, heads)
        self.condition = Conditioning(text, width)
        self.image = PatchEmbedding(channels, image_size, patch_size, width, grid)
        self.text = TextEmbedding(text, width)
        self.blocks = nn.ModuleList(CrossBlock(width, heads, qk_norm) for _ in range(depth))
        self.final = Final(channels, patch_size, width)

    def forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        """z [B, C, H, W], label [B] in 0..1000 -> [B, C, H, W]."""
        c = self.condition(label, text.pooled)  # [B, D]
        x = self.image(z)  # [B, N, D]
        y = norm(torch.cat(self.text(text.tokens), dim=1))  # [B, sum L_i, D]
        for block in self.blocks:
            x = block(x, y, c)
        return self.final(Tokens(x), c, z)
