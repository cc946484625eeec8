"""The text of a batch: captions drawn by random words, encoded once for the whole split or as they come."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowzoo.data.memory import free_memory, gib
from flowzoo.data.source import Encoded, Source
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.progress import track

log = logging.getLogger(__name__)

LARGEST = 8 * 2**30  # bytes of encoded captions that are kept, if half of the free memory is not less
_CHUNK = 512  # captions encoded at once


def encode(encoders: TextEncoders, captions: list[str], device: torch.device) -> Text:
    """float32 Text on the device, rounded to the half precision that caches keep: equal whether cached or not."""
    return _map(_encode_half(encoders, captions, device), Tensor.float)


def rounded(text: Text, device: torch.device) -> Text:
    """Text in half precision -> float32 on the device."""
    return _map(text, lambda x: x.to(device, non_blocking=True).float())


def _encode_half(encoders: TextEncoders, captions: list[str], device: torch.device) -> Text:
    # Text embeddings are kept in half precision (paper Table 7).
    return _map(encoders.encode(captions), lambda x: x.detach().to(device, torch.float16))


class TextCache:
    """Text of (image, draw) pairs of one split. Each unique caption is encoded once, where the budget allows.

    What was encoded before is kept as it is, where the budget allows, and else read for each batch.

    budget: bytes; default 8 GiB or half of the device's free memory. Above it captions are encoded batch by batch.
    `longest` says how many tokens of each encoder the longest caption has, where all are encoded.
    """

    def __init__(self, source: Source, encoders: TextEncoders, device: torch.device, budget: int | None = None) -> None:
        self._part: Callable[[Sequence[int]], Text]  # of captions by number, in half precision on the device
        if isinstance(source, Encoded):
            rows, each, n = source.caption_rows()
            listed, counts = torch.from_numpy(rows), torch.from_numpy(each)
            self._part = lambda rows: _map(source.text(encoders, rows), lambda x: x.to(device))
        else:
            numbers: dict[str, int] = {}
            found: list[int] = []
            of_each: list[int] = []
            for index in track(range(len(source)), f"captions of {source.name}"):
                alternatives = source.captions(index)
                of_each.append(len(alternatives))
                found.extend(numbers.setdefault(caption, len(numbers)) for caption in alternatives)
            listed, counts, n = torch.tensor(found), torch.tensor(of_each), len(numbers)
            captions = list(numbers)
            self._part = lambda rows: _encode_half(encoders, [captions[row] for row in rows], device)
        self._listed, self._count = listed.to(device), counts.to(device)
        self._first = self._count.cumsum(0) - self._count
        self.longest: tuple[int, ...] | None = None
        self._kept = self._encode_all(n, min(LARGEST, free_memory(device) // 2) if budget is None else budget)

    @property
    def kept(self) -> bool:
        """Whether all captions are encoded already."""
        return self._kept is not None

    def at(self, indices: Tensor, draws: Tensor) -> Text:
        """indices, draws: int64 [B] on the device -> float32 Text: of each image caption `draw mod alternatives`."""
        rows = self._listed[self._first[indices] + draws % self._count[indices]]
        if self._kept is not None:
            return _map(self._kept, lambda x: x.index_select(0, rows).float())
        return _map(self._part(rows.tolist()), Tensor.float)

    def _encode_all(self, n: int, budget: int) -> Text | None:
        one = self._part(range(1))
        need = n * sum(x.nbytes for x in _leaves(one))
        if need > budget:
            log.warning("%d captions encoded take %s, above %s: each batch is encoded anew", n, gib(need), gib(budget))
            return None
        kept, lengths = _map(one, lambda x: x.new_empty(n, *x.shape[1:])), []
        for start in track(range(0, n, _CHUNK), "encoding captions"):
            part = self._part(range(start, min(start + _CHUNK, n)))
            for whole, piece in zip(_leaves(kept), _leaves(part), strict=True):
                whole[start : start + _CHUNK] = piece
            lengths.append(part.lengths())
        self.longest = tuple(map(max, zip(*lengths, strict=True)))
        return kept


def _leaves(text: Text) -> tuple[Tensor, ...]:
    return (*text.tokens, *text.pooled)


def _map(text: Text, change: Callable[[Tensor], Tensor]) -> Text:
    return Text(tuple(map(change, text.tokens)), tuple(map(change, text.pooled)))
