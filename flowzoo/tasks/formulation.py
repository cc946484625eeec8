"""The task of the study: V formulations, each fitting its own target on the same images, draws and noise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from flowzoo.autoencoders.latents import Latents
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.data.loader import Batch, Batches
from flowzoo.data.source import Source, shuffled
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.formulation.formulation import Coefficients
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.metrics.validation import ValidationBatch, validation_loss
from flowzoo.randomness import generator, uniform
from flowzoo.tasks.task import Network

BLOCK = 32  # steps whose records are computed at once


class FormulationTask:
    """Draws t and noise, asks the formulations for one record a sample, and fits their targets.

    Every random number is a function of (seed, step, purpose). Variants of one seed share images, captions, u, eps and
    dropout; variants of another seed have their own, as each would have alone.
    A resumed run goes on with the draws that it would have had.
    """

    compiled = False

    def __init__(
        self,
        formulation: StackedFormulation,
        autoencoder: Latents,
        text: TextEncoders,
        val: Source,
        *,
        seeds: Sequence[int],
        val_samples: int,
        batch_size: int,
        stream: Callable[[torch.device, Sequence[int], int, int], Sequence[Batches]],
    ) -> None:
        """`seeds`, one a variant. `stream` makes the batches of the distinct seeds on a device, for a rank of a world.

        Validation takes `val_samples` images of `val`, `batch_size` at once.
        """
        self.formulation, self.autoencoder, self.text, self.val = formulation, autoencoder, text, val
        self.seeds = list(dict.fromkeys(seeds))
        self._seed_of = torch.tensor([self.seeds.index(seed) for seed in seeds])
        self._val_samples, self._batch_size, self._stream = val_samples, batch_size, stream
        self._streams: Sequence[Batches] = ()
        self._made_for: tuple[torch.device, int, int] | None = None

    @property
    def waited(self) -> float:
        return sum(batches.wait for batches in self._streams)

    def begin(self, device: torch.device, rank: int, world: int) -> None:
        self.device, self.rank, self.world = device, rank, world
        self.autoencoder.to(device)
        self.text.to(device)
        self._seed_of = self._seed_of.to(device)
        if self._made_for != (device, rank, world):
            self._streams, self._made_for = self._stream(device, self.seeds, rank, world), (device, rank, world)
        self._records: Coefficients | None = None  # of a block of steps, [V, BLOCK * B]
        self._first = 0  # step of the block
        self._held_out: ValidationBatch | None = None

    def batches(self, step: int) -> Iterator[tuple[Batch, ...]]:
        """One batch a distinct seed."""
        return zip(*(stream.iterate(step) for stream in self._streams), strict=True)

    def inputs(self, batch: tuple[Batch, ...], step: int) -> tuple[Any, ...]:
        """x0 and eps [V or 1, B, ...], the text, and the records' fields [V, B]."""
        x0s, noises, texts = [], [], []
        for seed, stream, one in zip(self.seeds, self._streams, batch, strict=True):
            x0 = one.images if one.images.is_floating_point() else self.autoencoder.encode(one.images)
            every = len(x0) * self.world
            share = slice(self.rank * len(x0), (self.rank + 1) * len(x0))  # of the draws for the whole batch
            x0s.append(x0)
            noises.append(draw_noise(seed, step, x0, every)[share])
            told = one.text if stream.longest is None else one.text.merged(stream.longest)
            texts.append(self.text.drop(told, draw_kept(seed, step, self.text, every, self.device)[share]))
        x0, noise = self._per_variant(x0s), self._per_variant(noises)
        return x0, noise, self._text(texts), *self._at(step, x0.shape[1], x0.dtype)

    def _per_variant(self, each: Sequence[Tensor]) -> Tensor:
        """[1, ...] where all variants share it, else [V, ...]."""
        return each[0][None] if len(each) == 1 else torch.stack(list(each)).index_select(0, self._seed_of)

    def _text(self, each: Sequence[Text]) -> Text:
        if len(each) == 1:
            return each[0]
        return Text(
            tuple(self._per_variant(x) for x in zip(*(text.tokens for text in each), strict=True)),
            tuple(self._per_variant(x) for x in zip(*(text.pooled for text in each), strict=True)),
            each[0].counts,  # all seeds' captions are of one set
        )

    def _at(self, step: int, share: int, dtype: torch.dtype) -> list[Tensor]:
        """The fields [V, B] of a step's records: those of `BLOCK` steps are computed at once."""
        n = share * self.world
        first = step - step % BLOCK
        if self._records is None or first != self._first:
            each = [[draw_u(s, i, n, self.device) for i in range(first, first + BLOCK)] for s in self.seeds]
            u = torch.stack([torch.cat(steps) for steps in each])  # [seeds, BLOCK * B]
            u = u[0] if len(u) == 1 else u.index_select(0, self._seed_of)
            self._first, self._records = first, self.formulation.coefficients(u).to(dtype)
        place = (step - first) * n + self.rank * share
        block = self._records
        return [getattr(block, field.name)[:, place : place + share] for field in fields(block)]

    def parts(self, inputs: tuple[Any, ...], n: int) -> Iterator[tuple[Any, ...]]:
        x0, eps, text, *records = inputs
        samples = text.tokens[0].ndim - 3  # the axis: text of all variants has no other before it
        tokens, pooled = (zip(*(x.chunk(n, samples) for x in each), strict=True) for each in (text.tokens, text.pooled))
        texts = [Text(*one, text.counts) for one in zip(tokens, pooled, strict=True)]
        own = zip(*(x.chunk(n, 1) for x in (x0, eps, *records)), strict=True)
        return ((x, noise, told, *rest) for (x, noise, *rest), told in zip(own, texts, strict=True))

    def losses(self, network: StackedBackbone, weights: Mapping[str, Tensor], *inputs: Any) -> Tensor:
        """[V] weighted mean squared errors on the targets."""
        return formulation_losses(network, weights, *inputs)

    def validate(self, network: Network) -> Tensor:
        """[V, 8]: the paper's eight times (flowzoo/metrics/validation.py)."""
        if self._held_out is None:
            indices = shuffled(self.val, min(self._val_samples, len(self.val)))
            images = torch.from_numpy(self.val.images(indices)).to(self.device)
            told = self.text.encode([self.val.prompt(i) for i in indices])
            self._held_out = ValidationBatch.of(self.autoencoder.encode(images), told.merged())
        size = self._batch_size
        while True:  # in pieces as large as the memory allows: on a GPU the step's graph keeps what a step needs
            try:
                return validation_loss(network, self.formulation, self._held_out, size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            size //= 2


def formulation_losses(
    network: StackedBackbone, weights: Mapping[str, Tensor], x0: Tensor, eps: Tensor, text: Text, *records: Tensor
) -> Tensor:
    """[V] from weights by name [V, *shape], data and noise [V or 1, B, ...], the text, and records [V, B]."""
    c = Coefficients(*records)
    each = c.expand_to(x0)
    out = network.call(weights, each.c_in * each.z(x0, eps), c.label.float(), text)
    return (each.weight * (out.to(x0.dtype) - each.target(x0, eps)).square()).flatten(1).mean(1)


# The random numbers of a step: functions of (seed, step, purpose).


def draw_u(seed: int, step: int, n: int, device: torch.device) -> Tensor:
    """u [n], float64, from which formulations draw t."""
    return uniform((n,), generator(seed, step, "u", device))


def draw_noise(seed: int, step: int, like: Tensor, n: int) -> Tensor:
    """eps [n, *like.shape[1:]], standard normal."""
    shape = (n, *like.shape[1:])
    return torch.randn(shape, generator=generator(seed, step, "eps", like.device), device=like.device, dtype=like.dtype)


def draw_kept(seed: int, step: int, text: TextEncoders, n: int, device: torch.device) -> Tensor:
    """Which encoders are not dropped, bool [n, encoders] (paper, B.3)."""
    # The default type is float64 within a run in that precision: it would draw other numbers.
    shape, gen = (n, len(text.names)), generator(seed, step, "text", device)
    return torch.rand(shape, generator=gen, device=device, dtype=torch.float32) >= text.p_drop
