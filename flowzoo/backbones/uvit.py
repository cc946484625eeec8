"""U-ViT of Hoogeboom et al. 2023 ("simple diffusion"): convolutional levels of a U-Net around a transformer.

Ours, where that paper is silent or differs: the transformer is DiT's (text tokens appended, adaLN-zero), channels halve
with every level up from the transformer's width, and there is no dropout (randomness stays outside of networks).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.backbones.parts import (
    Conditioning,
    JointBlock,
    Modulation,
    Modules,
    TextEmbedding,
    Tokens,
    width_and_heads,
    zeroed,
)
from flowzoo.backbones.positions import Grid, Interpolated, PositionalEncoding
from flowzoo.encoders.text import Text, TextSpec
from flowzoo.sizes import shown


class Conv2d(nn.Conv2d):
    """In the precision of its weights: autocast would see to it, but vmap takes a convolution apart before."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


def group_norm(channels: int) -> nn.GroupNorm:
    """Up to 32 groups, of 4 channels or more where there are as many: alone, a channel would lose its mean."""
    return nn.GroupNorm(math.gcd(32, max(1, channels // 4)), channels, eps=1e-6)


def halve(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, H/2, W/2], means of 2 x 2."""
    return F.avg_pool2d(x, 2)


def double(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, 2H, 2W], each pixel four times; by expand, whose gradient is deterministic on GPUs."""
    b, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(b, c, h, 2, w, 2).reshape(b, c, 2 * h, 2 * w)


class ResBlock(nn.Module):
    """Two convolutions with a shortcut, modulated between them; the shortcut alone until trained."""

    def __init__(self, c_in: int, c_out: int, width: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = group_norm(c_in), group_norm(c_out)
        self.conv_in = Conv2d(c_in, c_out, 3, padding=1)
        self.conv_out = zeroed(Conv2d(c_out, c_out, 3, padding=1))
        self.modulation = Modulation(width, 2, c_out)
        self.shortcut = Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x [B, c_in, H, W], c [B, D] -> [B, c_out, H, W]."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        shift, scale = (m.mT[..., None] for m in self.modulation(c))  # [B, c_out, 1, 1]
        h = self.conv_out(F.silu(self.norm_out(h) * (1 + scale) + shift))
        return self.shortcut(x) + h


class Level(nn.Module):
    """The blocks of one resolution on the way down and on the way up, and the layers that change channels."""

    def __init__(self, channels: int, below: int, blocks: int, width: int) -> None:
        super().__init__()
        self.down = Modules[ResBlock](ResBlock(channels, channels, width) for _ in range(blocks))
        self.to_below = Conv2d(channels, below, 1)
        self.from_below = Conv2d(below, channels, 1)
        self.up = Modules[ResBlock](ResBlock(2 * channels, channels, width) for _ in range(blocks))


class UViT(nn.Module):
    """log2(patch_size) convolutional levels, then the transformer on H / patch_size x W / patch_size tokens."""

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
        level_blocks: int = 2,
        grid: Grid | None = None,
    ) -> None:
        """size: (H, W) of z. width None: 64 * depth; heads None: width / 64. level_blocks: ResBlocks a level and
        direction.

        Raises ValueError if sizes do not fit: patch_size must be a power of two, at least 2, that divides H, W and
        width.
        """
        super().__init__()
        width, heads = width_and_heads(depth, width, heads)
        if patch_size < 2 or patch_size & (patch_size - 1):
            raise ValueError(f"patch_size={patch_size} must be a power of two, at least 2: one level each halving")
        if any(edge % patch_size for edge in (*size, width)):
            raise ValueError(f"size={shown(size)} and width={width} must be multiples of patch_size={patch_size}")
        if level_blocks < 1:
            raise ValueError(f"level_blocks={level_blocks} must be at least 1")
        self.patch_size = patch_size
        n = patch_size.bit_length() - 1
        sizes = [width >> (n - i) for i in range(n + 1)]  # channels of each level, the transformer's width last
        self.condition = Conditioning(text, width)
        self.conv_in = Conv2d(channels, sizes[0], 3, padding=1)
        self.levels = Modules[Level](Level(sizes[i], sizes[i + 1], level_blocks, width) for i in range(n))
        self.positions = PositionalEncoding(grid or Interpolated.of(size, patch_size), size, patch_size, width)
        self.text = TextEmbedding(text, width)
        self.blocks = nn.ModuleList(JointBlock(1, width, heads, qk_norm) for _ in range(depth))
        self.norm_out = group_norm(sizes[0])
        self.conv_out = zeroed(Conv2d(sizes[0], channels, 3, padding=1))

    def forward(self, z: Tensor, label: Tensor, text: Text) -> Tensor:
        """z [B, C, H, W], label [B] in 0..1000 -> [B, C, H, W]."""
        if z.shape[-2] % self.patch_size or z.shape[-1] % self.patch_size:
            raise ValueError(f"{z.shape[-2]} x {z.shape[-1]} pixels are not multiples of patch_size={self.patch_size}")
        c = self.condition(label, text.pooled)  # [B, D]
        x = self.conv_in(z)
        skips = []
        for level in self.levels:
            for block in level.down:
                x = block(x, c)
                skips.append(x)
            x = level.to_below(halve(x))
        x = self.transform(x, c, text)  # [B, D, H/p, W/p]
        for level in reversed(list(self.levels)):
            x = double(level.from_below(x))
            for block in level.up:
                x = block(torch.cat([x, skips.pop()], dim=1), c)
        return self.conv_out(F.silu(self.norm_out(x)))

    def transform(self, x: Tensor, c: Tensor, text: Text) -> Tensor:
        """The transformer: x [B, D, h, w] -> [B, D, h, w]."""
        h, w = x.shape[-2:]
        image = x.flatten(2).mT + self.positions(h, w)  # [B, h w, D]
        tokens = [Tokens(torch.cat([image, *self.text(text.tokens)], dim=1))]  # [B, h w + sum L_i, D]
        key_bias = text.key_bias(h * w, image)
        for block in self.blocks:
            tokens = block(tokens, c, key_bias)
        return tokens[0].value()[:, : h * w].mT.unflatten(2, (h, w))
