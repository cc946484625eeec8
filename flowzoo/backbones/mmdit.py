"""MM-DiT, the paper's architecture (section 4, Fig. 2): image and text have their own weights and meet in attention."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowzoo.backbones.parts import (
    KV,
    QKV,
    Conditioning,
    Final,
    JointBlock,
    Modulation,
    Modules,
    PatchEmbedding,
    Stream,
    TextEmbedding,
    Tokens,
    attend_jointly,
    width_and_heads,
)
from flowzoo.backbones.positions import Grid
from flowzoo.encoders.text import Text, TextSpec


class LastText(nn.Module):
    """What the last block does to text: offer keys and values. Nothing reads the text tokens after it."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.modulation = Modulation(width, 2)
        self.kv = KV(width, heads, qk_norm)


class LastBlock(nn.Module):
    """A joint block that updates the image tokens alone."""

    def __init__(self, n: int, width: int, heads: int, qk_norm: bool, dual: bool = False) -> None:
        super().__init__()
        self.image = Stream(width, heads, qk_norm, dual)
        self.texts = Modules[LastText](LastText(width, heads, qk_norm) for _ in range(n - 1))

    def forward(self, tokens: Sequence[Tokens], c: Tensor, key_bias: Tensor | None = None) -> Tokens:
        """tokens: image, then texts, [B, L_i, D]; key_bias [1, sum L_i] -> image."""
        vectors = [self.image.modulation(c), *(text.modulation(c) for text in self.texts)]
        normed = [t.normed(*m[:2]) for t, m in zip(tokens, vectors, strict=True)]
        projections: list[QKV | KV] = [self.image.qkv, *(text.kv for text in self.texts)]
        (attended,) = attend_jointly(projections, [h for _, h in normed], key_bias)
        return self.image.after_attention(normed[0][0], attended, vectors[0][2:])


class MMDiT(nn.Module):
    """Two sets of weights; with `split_text` one for the image and one for each encoder (three for two encoders).

    In the first `dual_attention` blocks the image also attends to itself alone, as in SD3.5 (13 of the 24 of its
    medium model).
    """

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
        split_text: bool = False,
        dual_attention: int = 0,
        grid: Grid | None = None,
    ) -> None:
        """size: (H, W) of z. width None: 64 * depth; heads None: width / 64. Raises ValueError if sizes do not fit."""
        super().__init__()
        width, heads = width_and_heads(depth, width, heads)
        if dual_attention not in range(depth + 1):
            raise ValueError(f"dual_attention={dual_attention!r} blocks; allowed: 0 to depth={depth}")
        self.split_text = split_text
        n = 1 + (len(text.dims) if split_text else 1)
        self.condition = Conditioning(text, width)
        self.image = PatchEmbedding(channels, size, patch_size, width, grid)
        self.text = TextEmbedding(text, width)
        self.blocks = nn.ModuleList(JointBlock(n, width, heads, qk_norm, i < dual_attention) for i in range(depth - 1))
        self.last = LastBlock(n, width, heads, qk_norm, dual_attention == depth)
        self.final = Final(channels, patch_size, width)

    def forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        """z [B, C, H, W], label [B] in 0..1000 -> [B, C, H, W]."""
        c = self.condition(label, text.pooled)  # [B, D]
        ys = self.text(text.tokens)  # [B, L_i, D] each
        if not self.split_text:
            ys = [torch.cat(ys, dim=1)]  # [B, sum L_i, D]
        image = self.image(z)  # [B, N, D]
        tokens = [Tokens(x) for x in (image, *ys)]
        key_bias = text.key_bias(image.shape[1], image)
        for block in self.blocks:
            tokens = block(tokens, c, key_bias)
        return self.final(self.last(tokens, c, key_bias), c, z)
