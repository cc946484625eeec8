"""What backbones receive of the text: token sequences and pooled vectors of an ordered set of frozen encoders."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


class Text(NamedTuple):
    """One entry an encoder, so that each can be dropped, left out or given its own weights on its own."""

    tokens: tuple[Tensor, ...]  # [B, L_i, D_i]
    pooled: tuple[Tensor, ...]  # [B, P_i]; P_i may be 0

    def rows(self, index: slice | Tensor) -> "Text":
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
