"""The text of a batch: captions drawn by random words, encoded once for the whole split or as they come."""

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from flowzoo.data.memory import free_memory, gib
from flowzoo.data.source import Source
from flowzoo.encoders.text import Text
from flowzoo.progress import track

log = logging.getLogger(__name__)

LARGEST = 8 * 2**30  # bytes of encoded captions that are kept, if half of the free memory is not less
_CHUNK = 512  # captions encoded at once


class Encoders(Protocol):
    """What is needed of `TextEncoders`."""

    def encode(self, captions: list[str]) -> Text: ...


def encode(encoders: Encoders, captions: list[str], device: torch.device) -> Text:
    """float32 Text on the device, rounded to the half precision that caches keep: equal whether cached or not."""
    return _map(_encode_half(encoders, captions, device), Tensor.float)


def _encode_half(encoders: Encoders, captions: list[str], device: torch.device) -> Text:
    # Text embeddings are kept in half precision (paper Table 7).
    return _map(encoders.encode(captions), lambda x: x.detach().to(device, torch.float16))


class TextCache:
    """Text of (image, draw) pairs of one split. Each unique caption is encoded once, where the budget allows.

    budget: bytes; default 8 GiB or half of the device's free memory. Above it captions are encoded batch by batch.
    `longest` says how many tokens of each encoder the longest caption has, where all are encoded.
    """

    def __init__(self, source: Source, encoders: Encoders, device: torch.device, budget: int | None = None) -> None:
        self._encoders = encoders
        self._device = device
        numbers: dict[str, int] = {}
        listed: list[int] = []
        counts: list[int] = []
        for index in track(range(len(source)), f"captions of {source.name}"):
            alternatives = source.captions(index)
            counts.append(len(alternatives))
            listed.extend(numbers.setdefault(caption, len(numbers)) for caption in alternatives)
        self.captions = list(numbers)
        self._listed = torch.tensor(listed, device=device)
        self._count = torch.tensor(counts, device=device)
        self._first = self._count.cumsum(0) - self._count
        self.longest: tuple[int, ...] | None = None
        self._kept = self._encode_all(min(LARGEST, free_memory(device) // 2) if budget is None else budget)

    @property
    def kept(self) -> bool:
        """Whether all captions are encoded already."""
        return self._kept is not None

    def at(self, indices: Tensor, draws: Tensor) -> Text:
        """indices, draws: int64 [B] on the device -> float32 Text: of each image caption `draw mod alternatives`."""
        rows = self._listed[self._first[indices] + draws % self._count[indices]]
        if self._kept is not None:
            return _map(self._kept, lambda x: x.index_select(0, rows).float())
        return encode(self._encoders, [self.captions[r] for r in rows.tolist()], self._device)

    def _encode_all(self, budget: int) -> Text | None:
        n = len(self.captions)
        one = _encode_half(self._encoders, self.captions[:1], self._device)
        need = n * sum(x.nbytes for x in _leaves(one))
        if need > budget:
            log.warning("%d captions encoded take %s, above %s: each batch is encoded anew", n, gib(need), gib(budget))
            return None
        kept, lengths = _map(one, lambda x: x.new_empty(n, *x.shape[1:])), []
        for start in track(range(0, n, _CHUNK), "encoding captions"):
            part = _encode_half(self._encoders, self.captions[start : start + _CHUNK], self._device)
            for whole, piece in zip(_leaves(kept), _leaves(part), strict=True):
                whole[start : start + _CHUNK] = piece
            lengths.append(part.lengths())
        self.longest = tuple(map(max, zip(*lengths, strict=True)))
        return kept


def _leaves(text: Text) -> tuple[Tensor, ...]:
    return (*text.tokens, *text.pooled)


def _map(text: Text, change: Callable[[Tensor], Tensor]) -> Text:
    return Text(tuple(map(change, text.tokens)), tuple(map(change, text.pooled)))
