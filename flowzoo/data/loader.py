"""Training batches as a function of (seed, step): the same from each cache, after a resume, on any number of ranks."""

import signal
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flowzoo.data.memory import free_memory, gib
from flowzoo.data.source import Encoded, Source
from flowzoo.data.textcache import TextCache, encode, rounded
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.progress import track
from flowzoo.randomness import generator
from flowzoo.runs.files import RunError
from flowzoo.sockets import keep_socket_paths_short

_CHUNK = 1024  # images decoded at once into the device cache
_ROOM = 0.8  # share of the free memory that the device cache may take
_PREFETCH = 4  # batches that a worker keeps ready
NO_TEXT = Text((), ())
Encode = Callable[[Tensor], Tensor]  # uint8 images, or kept latents, [n, ...] -> floats [n, c, h, w], on one device


@dataclass
class Batch:
    images: Tensor  # on the device: uint8 [B, C, H, W], or floats [B, c, h, w] where they were encoded before
    text: Text  # float32, on the device
    captions: list[str] | None = None  # where they are at hand


class Plan:
    """Which image, with which of its captions, stands at each of this rank's B = batch_size / world places of a batch.

    Epochs are permutations drawn from (seed, epoch) and laid end to end; batch k is places k * batch_size onward.
    """

    def __init__(self, images: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1 or batch_size % world:
            raise ValueError(
                f"batch_size={batch_size} must be a positive multiple of the {world} processes that share it"
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank} is out of range; allowed: 0 to {world - 1}")
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self._share = batch_size // world
        self._start = rank * self._share
        self._orders: dict[int, Tensor] = {}

    def reseeded(self, seed: int) -> "Plan":
        """The same places in another seed's order."""
        other = copy(self)
        other.seed, other._orders = seed, {}
        return other

    def indices(self, step: int) -> Tensor:
        """int64 [B]."""
        start = step * self.batch_size + self._start
        stop = start + self._share
        parts = []
        while start < stop:
            epoch, place = divmod(start, self.images)
            parts.append(self._order(epoch)[place : place + stop - start])
            start += len(parts[-1])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def draws(self, step: int) -> Tensor:
        """int64 [B] in 0..2^31 - 1: image i gets its caption number `draw mod alternatives`."""
        all_ranks = torch.randint(0, 2**31, (self.batch_size,), generator=generator(self.seed, step, "caption"))
        return all_ranks[self._start : self._start + self._share]

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch may span two epochs
                del self._orders[min(self._orders)]
            self._orders[epoch] = torch.randperm(self.images, generator=generator(self.seed, epoch, "order"))
        return self._orders[epoch]


class Cache(Protocol):
    @property
    def longest(self) -> tuple[int, ...] | None: ...

    def at(self, step: int) -> Batch: ...

    def iterate(self, start_step: int) -> Iterator[Batch]: ...

    def reseeded(self, seed: int) -> "Cache": ...


class Resident:
    """`cache=device`: the whole split as one tensor on the device, decoded once; a batch is a look-up.

    It holds uint8 images, or what `encode` makes of them; of an encoded source its latents, and `encode` makes of those
    what a batch has. Raises ValueError, with the sizes, where it does not fit.
    """

    def __init__(
        self,
        source: Source,
        encoders: TextEncoders | None,
        plan: Plan,
        device: torch.device,
        workers: int,
        encode: Encode | None,
    ) -> None:
        def read(chunk: Sequence[int]) -> Tensor:
            if isinstance(source, Encoded):
                return source.latents(chunk)
            images = torch.from_numpy(source.images(chunk))
            return encode(images.to(device)) if encode else images

        self._scaled = encode if isinstance(source, Encoded) else None
        one = read([0])
        need, free = len(source) * one.nbytes, free_memory(device)
        if need > _ROOM * free:
            raise ValueError(
                f"data.cache=device needs {gib(need)} for {len(source)} images of {source.name}, "
                f"but {device} has {gib(free)} free, of which it takes {_ROOM:.0%} at most; use data.cache=none"
            )
        self._plan = plan
        self._images = torch.empty((len(source), *one.shape[1:]), dtype=one.dtype, device=device)
        for start in track(range(0, len(source), _CHUNK), f"images of {source.name}"):
            chunk = range(start, min(start + _CHUNK, len(source)))
            self._images[start : chunk.stop] = read(chunk)
        self._text = TextCache(source, encoders, device) if encoders else None

    @property
    def longest(self) -> tuple[int, ...] | None:
        return self._text.longest if self._text else None

    def at(self, step: int) -> Batch:
        # One small copy a step; everything else is looked up on the device.
        both = torch.stack([self._plan.indices(step), self._plan.draws(step)])
        indices, draws = both.to(self._images.device, non_blocking=True)
        text = self._text.at(indices, draws) if self._text else NO_TEXT
        images = self._images.index_select(0, indices)
        return Batch(self._scaled(images) if self._scaled else images, text)

    def iterate(self, start_step: int) -> Iterator[Batch]:
        return map(self.at, count(start_step))

    def reseeded(self, seed: int) -> "Resident":
        other = copy(self)
        other._plan = self._plan.reseeded(seed)
        return other


class Streamed:
    """`cache=none`: images decoded by `workers` processes ahead of their step, captions encoded as they come.

    Of an encoded source they bring latents and text, of which `encode` makes what a batch has.
    """

    longest = None

    def __init__(
        self,
        source: Source,
        encoders: TextEncoders | None,
        plan: Plan,
        device: torch.device,
        workers: int,
        encode: Encode | None,
    ) -> None:
        self._device = device
        self._steps = _Steps(source, plan, encoders)
        self._encoders = encoders
        self._scaled = encode if isinstance(source, Encoded) else None
        self._workers = workers

    def at(self, step: int) -> Batch:
        return self._finish(self._steps[step])

    def iterate(self, start_step: int) -> Iterator[Batch]:
        if self._workers:
            keep_socket_paths_short()
        loader = DataLoader(
            self._steps,
            batch_size=None,
            sampler=count(start_step),
            num_workers=self._workers,
            prefetch_factor=_PREFETCH if self._workers else None,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # or it would draw from the global one
            worker_init_fn=leave_signals_to_the_parent,
        )
        return map(self._finish, loader)

    def reseeded(self, seed: int) -> "Streamed":
        other = copy(self)
        other._steps = self._steps.reseeded(seed)
        return other

    def _finish(self, loaded: "_Loaded | RunError") -> Batch:
        if isinstance(loaded, RunError):
            raise loaded
        images = loaded.images.to(self._device, non_blocking=True)
        if loaded.text is not None:
            text = rounded(loaded.text, self._device)
        else:
            text = encode(self._encoders, loaded.captions, self._device) if self._encoders else NO_TEXT
        return Batch(self._scaled(images) if self._scaled else images, text, loaded.captions)


class _Loaded(NamedTuple):
    """What a loader process brings of a step."""

    images: Tensor
    captions: list[str]
    text: Text | None  # where it was encoded before


def leave_signals_to_the_parent(worker: int) -> None:
    """A terminal sends Ctrl-C to all processes; the one that trains still needs its batches until it has saved."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


class _Steps(Dataset[_Loaded | RunError]):
    """What loader processes do: from a step to its images and captions, or the mistake, which no traceback buries."""

    def __init__(self, source: Source, plan: Plan, encoders: TextEncoders | None) -> None:
        self._source = source
        self._plan = plan
        self._encoders = encoders if isinstance(source, Encoded) else None  # who tell which text is asked for

    def reseeded(self, seed: int) -> "_Steps":
        other = copy(self)
        other._plan = self._plan.reseeded(seed)
        return other

    def __getitem__(self, step: int) -> _Loaded | RunError:
        source, indices = self._source, self._plan.indices(step).tolist()
        draws = self._plan.draws(step).tolist()
        try:
            kept = source.latents(indices) if isinstance(source, Encoded) else torch.from_numpy(source.images(indices))
            alternatives = map(source.captions, indices)
            captions = [texts[draw % len(texts)] for texts, draw in zip(alternatives, draws, strict=True)]
            text = None
            if isinstance(source, Encoded) and self._encoders is not None:
                text = source.text(self._encoders, source.caption_numbers(indices, draws))
        except RunError as error:
            return error
        return _Loaded(kept, captions, text)


CACHES: dict[str, Callable[[Source, TextEncoders | None, Plan, torch.device, int, Encode | None], Cache]] = {
    "device": Resident,
    "none": Streamed,
}


class Batches:
    """The training batches of one split, from either cache; `wait` counts the seconds spent waiting for them.

    Without encoders the text of a batch is empty. `encode` makes what is kept in place of uint8 images where all of
    them are kept; of a source that was encoded before, it makes of latents what batches have. batch_size is that of all
    `world` ranks together; a rank gets its slice.
    """

    def __init__(
        self,
        source: Source,
        encoders: TextEncoders | None,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        cache: str = "device",
        workers: int = 4,
        rank: int = 0,
        world: int = 1,
        encode: Encode | None = None,
    ) -> None:
        if cache not in CACHES:
            raise ValueError(f"data.cache={cache!r} is not known; allowed: {', '.join(CACHES)}")
        if workers < 0:
            raise ValueError(f"data.workers={workers} is out of range; allowed: 0 or more")
        plan = Plan(len(source), batch_size, seed, rank, world)
        self._cache = CACHES[cache](source, encoders, plan, torch.device(device), workers, encode)
        self.wait = 0.0

    @property
    def longest(self) -> tuple[int, ...] | None:
        """Of each encoder the tokens that the longest caption has; None where captions are encoded as they come."""
        return self._cache.longest

    def reseeded(self, seed: int) -> "Batches":
        """The batches of another seed; what is cached is shared."""
        other = copy(self)
        other._cache, other.wait = self._cache.reseeded(seed), 0.0
        return other

    def at(self, step: int) -> Batch:
        """The batch of one step, loaded now."""
        began = perf_counter()
        batch = self._cache.at(step)
        self.wait += perf_counter() - began
        return batch

    def iterate(self, start_step: int = 0) -> Iterator[Batch]:
        """Batches of start_step, start_step + 1, ... without end, prefetched where that helps."""
        batches = self._cache.iterate(start_step)
        while True:
            began = perf_counter()
            batch = next(batches)
            self.wait += perf_counter() - began
            yield batch

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()
