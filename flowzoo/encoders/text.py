"""What backbones receive of the text: token sequences and pooled vectors of an ordered set of frozen encoders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Text(NamedTuple):
    """One entry an encoder, so that each can be dropped, left out or given its own weights on its own."""

    tokens: tuple[Tensor, ...]  # [B, L_i, D_i]
    pooled: tuple[Tensor, ...]  # [B, P_i]; P_i may be 0

    def rows(self, index: int | slice | Tensor) -> "Text":
        """The text of some of the samples."""
        return Text(tuple(x[index] for x in self.tokens), tuple(x[index] for x in self.pooled))

    def to(self, *args: Any) -> "Text":
        """As Tensor.to, on every tensor."""
        return Text(tuple(x.to(*args) for x in self.tokens), tuple(x.to(*args) for x in self.pooled))


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
        )
