"""What the backbones are built of. Shapes: B batch, C channels, H W image, L tokens, D width, d = D / heads.

Nothing here draws random numbers or branches on the values of tensors, so that every backbone runs under
torch.func.vmap (many variants at once), torch.compile and CUDA graphs. Zero initialisation happens where a layer is
made, never by name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowzoo.backbones import fused
from flowzoo.backbones.fused.operator import EPS
from flowzoo.backbones.positions import Grid, Interpolated, PositionalEncoding, sinusoid
from flowzoo.encoders.text import TextSpec
from flowzoo.sizes import shown

HEAD_DIM = 64  # the paper's: depth d has width 64 d and d heads
LABEL_DIM = 256  # sines and cosines of the label, as in DiT and SD3

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
Item = TypeVar("Item", bound=nn.Module)


class Modules(nn.ModuleList, Generic[Item]):
    """nn.ModuleList whose items keep their type."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[Item]: ...


def width_and_heads(depth: int, width: int | None, heads: int | None) -> tuple[int, int]:
    """Width (None: 64 * depth, section 4) and heads (None: width / 64). Raises ValueError if they do not fit."""
    if depth < 1:
        raise ValueError(f"depth={depth} must be at least 1")
    width = HEAD_DIM * depth if width is None else width
    if heads is None and width % HEAD_DIM:
        raise ValueError(f"width={width} is not a multiple of {HEAD_DIM}: set heads, or choose such a width")
    heads = width // HEAD_DIM if heads is None else heads
    if width < 1 or heads < 1 or width % heads:
        raise ValueError(f"width={width} must be a positive multiple of heads={heads}")
    return width, heads


def linear(d_in: int, d_out: int) -> nn.Linear:
    """A linear layer with Xavier-uniform weight and zero bias, as in DiT."""
    layer = nn.Linear(d_in, d_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def zeroed(layer: Layer) -> Layer:
    """The layer itself, made to give 0 until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def patchify(z: Tensor, patch_size: int) -> Tensor:
    """[B, C, H, W] -> [B, (H/p)(W/p), p p C]: patches in rows, in each patch row, column, channel."""
    b, c, height, width = z.shape
    p = patch_size
    if height % p or width % p:
        raise ValueError(f"an image of {height} x {width} cannot be cut into patches of patch_size={p}")
    z = z.reshape(b, c, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
    return z.reshape(b, (height // p) * (width // p), p * p * c)


def unpatchify(x: Tensor, patch_size: int, h: int, w: int) -> Tensor:
    """The inverse of `patchify`: [B, h w, p p C] -> [B, C, h p, w p]."""
    p = patch_size
    x = x.reshape(x.shape[0], h, w, p, p, -1).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(x.shape[0], -1, h * p, w * p)


def norm(x: Tensor) -> Tensor:
    """Layer norm over the last axis, without parameters: modulation supplies scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x [B, L, D] normalised, then scaled and shifted by [B, 1, D]."""
    if fused.wanted(shift):
        return fused.modulated_norm(x, shift.squeeze(1), scale.squeeze(1))
    return norm(x) * (1 + scale) + shift


class Modulation(nn.Module):
    """adaLN-zero (Peebles & Xie 2023): n vectors of the condition, 0 at the start: blocks begin as identities."""

    def __init__(self, width: int, n: int, features: int | None = None) -> None:
        super().__init__()
        self.n = n
        self.linear = zeroed(nn.Linear(width, n * (features or width)))

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        """c [B, D], already through SiLU -> n tensors [B, 1, features]."""
        return self._vectors(c)[:, None].chunk(self.n, dim=-1)

    def _vectors(self, c: Tensor) -> Tensor:
        if not fused.wanted(c):
            return self.linear(c)
        y, bias = unbiased(self.linear, c)  # the weight's gradient comes in its own layout
        return y + bias


class RMSNorm(nn.Module):
    """RMS norm over the last axis with a learnable scale, in the precision of its input.

    nn.RMSNorm keeps a float32 scale under autocast and then leaves the fused kernel.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), EPS)


@dataclass(frozen=True)
class Tokens:
    """A residual stream."""

    x: Tensor  # [B, L, D]

    def value(self) -> Tensor:
        return self.x

    def normed(self, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The value, and it normalised, scaled and shifted."""
        return self.x, modulate(self.x, shift, scale)


@dataclass(frozen=True)
class Updated(Tokens):
    """x + gate * layer(hidden), not yet added: whoever normalises the sum adds it, in the same pass over memory."""

    hidden: Tensor  # [B, L, any]
    layer: nn.Linear
    gate: Tensor  # [B, 1, D]

    def value(self) -> Tensor:
        return self.x + self.gate * self.layer(self.hidden)

    def normed(self, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        if fused.wanted(self.hidden):
            update, bias = unbiased(self.layer, self.hidden)
            gate, shift, scale = (v.squeeze(1) for v in (self.gate, shift, scale))  # an index would be copied back
            return fused.add_norm(self.x, update, bias, gate, shift, scale)
        x = self.value()
        return x, modulate(x, shift, scale)


def unbiased(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer gives without its bias, and the bias [1, D_out], for a kernel to add it in passing."""
    return fused.product(x, layer.weight[None].to(x.dtype)), layer.bias[None].to(x.dtype)


class Projection(nn.Module):
    """Token vectors to n of query, key and value, split into heads; RMSNorm on the first n_normed of them (QK-norm)."""

    def __init__(self, width: int, heads: int, n: int, n_normed: int) -> None:
        super().__init__()
        self.heads, self.n = heads, n
        self.linear = linear(width, n * width)
        self.norms = Modules[RMSNorm](RMSNorm(width // heads) for _ in range(n_normed))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, L, D] -> n tensors [B, heads, L, d]."""
        parts = self.linear(x).unflatten(-1, (self.n, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        normed = [rms_norm(part) for rms_norm, part in zip(self.norms, parts, strict=False)]
        return (*normed, *parts[len(normed) :])


class QKV(Projection):
    """Query, key and value of one sequence."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__(width, heads, n=3, n_normed=2 if qk_norm else 0)


class KV(Projection):
    """Key and value of a sequence that is only looked at."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__(width, heads, n=2, n_normed=1 if qk_norm else 0)


class Q(Projection):
    """Query of a sequence that only looks."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__(width, heads, n=1, n_normed=1 if qk_norm else 0)


def attend(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """Attention of [B, heads, L, d], heads joined again: [B, L, D]. key_bias [1, L] is added to each key's scores."""
    # The norms of queries and keys leave autocast's precision; the fastest kernel wants all three alike.
    q, k = q.to(v.dtype), k.to(v.dtype)
    if fused.wanted(v) and v.shape[-1] in fused.HEADS:
        attended = fused.attend(q, k, v, key_bias)
    else:
        bias = None if key_bias is None else key_bias.to(v.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, bias)
    return attended.transpose(1, 2).flatten(2)


def attend_jointly(
    projections: Sequence[QKV | KV], hs: Sequence[Tensor], key_bias: Tensor | None = None
) -> list[Tensor]:
    """Queries of every stream that has any look at the keys of all: hs [B, L_i, D] -> [B, L_i, D] of the former.

    Streams without queries come last. key_bias [1, sum L_i] is added to the scores of each key.
    """
    head = hs[0].shape[-1] // projections[0].heads
    if fused.wanted(hs[0]) and len(hs) <= 2 and head in fused.HEADS:
        return _attend_fused(projections, hs, key_bias)
    parts = [projection(h) for projection, h in zip(projections, hs, strict=True)]
    looking = [part[0] for part in parts if len(part) == 3]
    k, v = (torch.cat([part[place] for part in parts], dim=2) for place in (-2, -1))
    attended = attend(torch.cat(looking, dim=2), k, v, key_bias)
    return list(attended.split([q.shape[2] for q in looking], dim=1))


def _attend_fused(projections: Sequence[QKV | KV], hs: Sequence[Tensor], key_bias: Tensor | None) -> list[Tensor]:
    packed = [unbiased(projection.linear, h) for projection, h in zip(projections, hs, strict=True)]
    if len(packed) == 1:
        packed.append((packed[0][0][:, :0], packed[0][1]))
    (qkv1, bias1), (qkv2, bias2) = packed
    heads = projections[0].heads
    weights: list[Tensor] = [norm.weight for projection in projections for norm in projection.norms]
    normed = bool(weights)
    if normed:  # of query and key of both; those of a stream without queries, and of none, are not read
        weights = weights[:2] + [weights[-1]] * (4 - len(weights)) + weights[2:]
        norms = torch.stack(weights)[None].to(qkv1.dtype)
    else:
        norms = qkv1.new_zeros(1, 4, qkv1.shape[-1] // (3 * heads))
    looking = [projection for projection in projections if projection.n == 3]
    short = max(h.shape[1] for h in hs) <= fused.LONGEST
    attention = fused.joint_attention if short else fused.long_attention
    return list(attention(qkv1, bias1, qkv2, bias2, norms, key_bias, heads, normed))[: len(looking)]


def mlp(width: int) -> nn.Sequential:
    """The block's MLP, ratio 4 (section 4)."""
    return nn.Sequential(linear(width, 4 * width), nn.GELU(approximate="tanh"), linear(4 * width, width))


class SecondAttention(nn.Module):
    """Attention of one stream to itself alone, beside the joint one (dual attention of Stable Diffusion 3.5)."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.qkv = QKV(width, heads, qk_norm)
        self.out = linear(width, width)

    def forward(self, x: Tensor, tokens: Tokens, shift: Tensor, scale: Tensor, gate: Tensor) -> Updated:
        """Add to `tokens`, which joint attention updated, what x [B, L, D], from before it, finds in itself."""
        (attended,) = attend_jointly([self.qkv], [modulate(x, shift, scale)])
        return Updated(tokens.value(), attended, self.out, gate)


class Stream(nn.Module):
    """One set of weights of one block: all that is done to tokens of one kind, but attention, in which kinds meet."""

    def __init__(self, width: int, heads: int, qk_norm: bool, dual: bool = False) -> None:
        """dual: with a `SecondAttention`."""
        super().__init__()
        self.modulation = Modulation(width, 9 if dual else 6)
        self.qkv = QKV(width, heads, qk_norm)
        self.out = linear(width, width)
        self.second = SecondAttention(width, heads, qk_norm) if dual else None
        self.mlp = mlp(width)

    def after_attention(self, x: Tensor, attended: Tensor, vectors: Sequence[Tensor]) -> Updated:
        """The rest of the block: x [B, L, D], what attention gave [B, L, D], and the modulation from its third on."""
        gate, shift, scale, of_mlp, *of_second = vectors
        tokens = Updated(x, attended, self.out, gate)
        if self.second is not None:
            tokens = self.second(x, tokens, *of_second)
        return self.feed_forward(tokens, shift, scale, of_mlp)

    def feed_forward(self, tokens: Tokens, shift: Tensor, scale: Tensor, gate: Tensor) -> Updated:
        """The MLP with its norm and gate."""
        x, h = tokens.normed(shift, scale)
        first, gelu, last = self.mlp
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        hidden = fused.bias_gelu(*unbiased(first, h)) if fused.wanted(h) else gelu(first(h))
        return Updated(x, hidden, last, gate)


class JointBlock(nn.Module):
    """A transformer block over n token streams, each with its own weights, joined in attention (section 4, Fig. 2b).

    One stream is DiT's block, two MM-DiT's. dual: the first stream, the image's, has a second attention to itself.
    """

    def __init__(self, n: int, width: int, heads: int, qk_norm: bool, dual: bool = False) -> None:
        super().__init__()
        self.streams = Modules[Stream](Stream(width, heads, qk_norm, dual and i == 0) for i in range(n))

    def forward(self, tokens: Sequence[Tokens], c: Tensor, key_bias: Tensor | None = None) -> list[Tokens]:
        """tokens: n streams [B, L_i, D]; c [B, D]; key_bias [1, sum L_i] -> as tokens."""
        vectors = [stream.modulation(c) for stream in self.streams]
        normed = [t.normed(*m[:2]) for t, m in zip(tokens, vectors, strict=True)]
        attended = attend_jointly([stream.qkv for stream in self.streams], [h for _, h in normed], key_bias)
        return [
            stream.after_attention(x, a, m[2:])
            for stream, (x, _), a, m in zip(self.streams, normed, attended, vectors, strict=True)
        ]


class Embedder(nn.Module):
    """A vector to the width of the backbone, by an MLP in the parameters' precision."""

    def __init__(self, d_in: int, width: int) -> None:
        super().__init__()
        self.hidden, self.out = linear(d_in, width), linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.hidden(x.to(self.hidden.weight.dtype))))


class Conditioning(nn.Module):
    """Label and pooled text in one vector, from which every modulation is computed."""

    def __init__(self, text: TextSpec, width: int) -> None:
        super().__init__()
        pooled = sum(text.pooled)
        self.label = Embedder(LABEL_DIM, width)
        self.pooled = Embedder(pooled, width) if pooled else None

    def forward(self, label: Tensor, pooled: Sequence[Tensor]) -> Tensor:
        """label [B] in 0..1000, pooled [B, P_i] each -> [B, D], through the SiLU that comes before every modulation."""
        sin, cos = sinusoid(label, LABEL_DIM // 2)
        c = self.label(torch.cat([cos, sin], dim=-1))
        if self.pooled is not None:
            c = c + self.pooled(torch.cat(tuple(pooled), dim=-1))
        return F.silu(c)


class TextEmbedding(nn.Module):
    """Each encoder's tokens through a linear layer of their own to the width of the backbone."""

    def __init__(self, text: TextSpec, width: int) -> None:
        super().__init__()
        if not text.dims:
            raise ValueError("the text specification names no encoder; a backbone needs at least one")
        self.linears = Modules[nn.Linear](linear(dim, width) for dim in text.dims)

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """[B, L_i, D_i] each -> [B, L_i, D] each, in float32 or better: residual streams are not rounded."""
        return [
            layer(x).to(torch.promote_types(layer.weight.dtype, torch.float32))
            for layer, x in zip(self.linears, tokens, strict=True)
        ]


class PatchEmbedding(nn.Module):
    """Patches of the image as tokens that know where they are."""

    def __init__(
        self, channels: int, size: tuple[int, int], patch_size: int, width: int, grid: Grid | None = None
    ) -> None:
        """size: (H, W) of z. grid: where patches are; None is the paper's, with the area of `size` as its base."""
        super().__init__()
        if patch_size < 1 or any(edge % patch_size for edge in size):
            raise ValueError(f"size={shown(size)} is not a multiple of patch_size={patch_size}")
        self.patch_size = patch_size
        self.linear = linear(channels * patch_size**2, width)
        self.positions = PositionalEncoding(grid or Interpolated.of(size, patch_size), size, patch_size, width)

    def forward(self, z: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, (H/p)(W/p), D]."""
        x = self.linear(patchify(z, self.patch_size))
        return x + self.positions(z.shape[-2] // self.patch_size, z.shape[-1] // self.patch_size)


class Final(nn.Module):
    """Tokens back to an image; 0 until trained."""

    def __init__(self, channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.modulation = Modulation(width, 2)
        self.linear = zeroed(nn.Linear(width, channels * patch_size**2))

    def forward(self, tokens: Tokens, c: Tensor, like: Tensor) -> Tensor:
        """tokens [B, L, D], c [B, D] -> [B, C, H, W] of the height and width of `like`."""
        h, w = like.shape[-2] // self.patch_size, like.shape[-1] // self.patch_size
        _, x = tokens.normed(*self.modulation(c))
        return unpatchify(self.linear(x), self.patch_size, h, w)
