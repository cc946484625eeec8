"""What backbones receive of the text: token sequences and pooled vectors of an ordered set of frozen encoders."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Text(NamedTuple):
    """One entry an encoder, so that each can be dropped, left out or given its own weights on its own.

    Backbones give text no positions, so n equal tokens are one token whose key attention counts n times. A caption's
    empty positions are such tokens: all that no caption of a set reaches are kept as one, which `counts` tells.
    """

    tokens: tuple[Tensor, ...]  # [B, L_i, D_i]
    pooled: tuple[Tensor, ...]  # [B, P_i]; P_i may be 0
    counts: tuple[int, ...] = ()  # how many equal tokens the last one of each encoder stands for; empty: one each

    def rows(self, index: int | slice | Tensor) -> "Text":
        """The text of some of the samples."""
        return Text(tuple(x[index] for x in self.tokens), tuple(x[index] for x in self.pooled), self.counts)

    def to(self, *args: Any) -> "Text":
        """As Tensor.to, on every tensor."""
        return Text(tuple(x.to(*args) for x in self.tokens), tuple(x.to(*args) for x in self.pooled), self.counts)

    def lengths(self) -> tuple[int, ...]:
        """Of each encoder the tokens up to the last that is not all zeros in some sample. Waits for the device."""
        used = [(x != 0).any(-1).flatten(0, -2).any(0) for x in self.tokens]  # [L_i]
        return tuple(int((x * torch.arange(1, len(x) + 1, device=x.device)).max()) for x in used)

    def merged(self, lengths: Sequence[int] | None = None) -> "Text":
        """The same text with the tokens beyond `lengths`, which must be equal, as one; `lengths` None: its own."""
        if not _merging:
            return self
        lengths = self.lengths() if lengths is None else lengths
        kept = [min(x.shape[-2], n + 1) for x, n in zip(self.tokens, lengths, strict=True)]
        counts = self.counts or (1,) * len(kept)
        return Text(
            tuple(x[..., :n, :] for x, n in zip(self.tokens, kept, strict=True)),
            self.pooled,
            tuple(count + x.shape[-2] - n for x, n, count in zip(self.tokens, kept, counts, strict=True)),
        )

    def whole(self) -> "Text":
        """The same text with every token by itself, as it was before it was `merged`."""
        if not self.counts:
            return self
        each = zip(self.tokens, self.counts, strict=True)
        return Text(tuple(torch.cat([x, *[x[..., -1:, :]] * (n - 1)], -2) for x, n in each), self.pooled)

    def key_bias(self, before: int, like: Tensor) -> Tensor | None:
        """What attention adds to the scores of keys that stand for n: ln n, [1, before + sum L_i].

        Of `before` other keys and then all encoders' tokens in a row; on `like`'s device, float32 or better. None where
        every token stands for itself.
        """
        if all(n == 1 for n in self.counts):
            return None
        lengths = [x.shape[-2] for x in self.tokens]
        dtype = torch.promote_types(like.dtype, torch.float32)
        bias = torch.zeros(1, before + sum(lengths), device=like.device, dtype=dtype)
        for length, n in zip(lengths, self.counts, strict=True):
            before += length
            bias[:, before - 1].fill_(math.log(n))  # a kernel: a CUDA graph can hold no copy from the host
        return bias


def understood(backbone: object, text: Text) -> Text:
    """What a backbone is given: text as it is where its own class says `knows_counts`, else whole.

    A class that is derived says so itself: it may do other things with its text.
    """
    return text if vars(type(backbone)).get("knows_counts", False) else text.whole()


_merging = True


@contextmanager
def unmerged() -> Iterator[None]:
    """Every token by itself for the block, for comparisons."""
    global _merging
    before, _merging = _merging, False
    try:
        yield
    finally:
        _merging = before


@dataclass(frozen=True)
class TextSpec:
    """Shapes of a `Text`: tokens L_i, widths D_i and pooled widths P_i of each encoder."""

    lengths: tuple[int, ...]
    dims: tuple[int, ...]
    pooled: tuple[int, ...]


class TextEncoder(Protocol):
    """One frozen encoder; a caption's empty positions are zeros."""

    length: int  # L
    dim: int  # D
    pooled_dim: int  # P
    fingerprint: str  # of everything that the encoding depends on

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens [n, L, D] and pooled [n, P], float32, without gradient."""

    def to(self, device: torch.device | str) -> Any:
        """Move in place."""


class TextEncoders:
    """An ordered set of named encoders. Any subset works at inference: `drop` the others, as training did at random."""

    def __init__(self, encoders: Mapping[str, TextEncoder]) -> None:
        if not encoders:
            raise ValueError("encoders is empty; at least one text encoder is needed")
        self.encoders = dict(encoders)
        self.names = tuple(self.encoders)
        each = tuple(self.encoders.values())
        self.spec = TextSpec(
            tuple(e.length for e in each), tuple(e.dim for e in each), tuple(e.pooled_dim for e in each)
        )
        self.fingerprint = sha256(repr([(k, e.fingerprint) for k, e in self.encoders.items()]).encode()).hexdigest()[
            :16
        ]
        # Paper, B.3: each is dropped on its own, so that a tenth of the steps has no text at all.
        self.p_drop = 0.1 ** (1 / len(each))
        self.device = torch.device("cpu")

    def to(self, device: torch.device | str) -> "TextEncoders":
        """Move in place, as a module does."""
        self.device = torch.device(device)
        for encoder in self.encoders.values():
            encoder.to(device)
        return self

    def encode(self, captions: Sequence[str]) -> Text:
        """float32, on `device`."""
        pairs = [encoder.encode(captions) for encoder in self.encoders.values()]
        return Text(tuple(tokens for tokens, _ in pairs), tuple(pooled for _, pooled in pairs)).to(self.device)

    def null(self, n: int) -> Text:
        """The text of `n` samples without any: zeros, as if all encoders were dropped."""
        shapes = zip(self.spec.lengths, self.spec.dims, strict=True)
        return Text(
            tuple(torch.zeros(n, length, dim, device=self.device) for length, dim in shapes),
            tuple(torch.zeros(n, dim, device=self.device) for dim in self.spec.pooled),
        )

    @staticmethod
    def drop(text: Text, keep: Tensor) -> Text:
        """Zero what an encoder says of a sample where `keep` [B, encoders] is False (paper, B.3)."""
        return Text(
            tuple(x * keep[:, i, None, None] for i, x in enumerate(text.tokens)),
            tuple(x * keep[:, i, None] for i, x in enumerate(text.pooled)),
            text.counts,
        )
