"""One training step of V variants in one program, as a Lightning module."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from flowzoo.backbones.fused.linear import gradients_in
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.captured import Captured
from flowzoo.data.loader import Batch, Batches
from flowzoo.encoders.autoencoder import Pixels
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.formulation.formulation import Coefficients
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.training import draws
from flowzoo.training.checkpoint import prefixed
from flowzoo.training.ema import EMA
from flowzoo.training.module import Trained
from flowzoo.training.optimizer import Optimizer, StackedAdamW, clip_factors

BLOCK = 32  # steps whose records are computed at once


class StackedModule(Trained):
    """What `TrainingModule` does, for V variants of one backbone: each ends with the weights of its run alone.

    Variants of one seed share images, captions, u, eps and dropout; variants of another seed have their own, as their
    runs alone would have. Nothing in a step waits for the device or loops over variants. A variant whose loss or
    gradient norm is not finite keeps its weights from that step on.
    """

    seed_of: Tensor  # [V]: which of the distinct seeds

    def __init__(
        self,
        backbone: StackedBackbone,
        formulation: StackedFormulation,
        autoencoder: Pixels,
        text: TextEncoders,
        ema: EMA,
        optimizers: Sequence[Optimizer],
        seeds: Sequence[int],
        steps: int,
        clip_norm: float | None,
        compile_mode: str | None,
        stream: Callable[[torch.device, Sequence[int]], Sequence[Batches]],
    ) -> None:
        """`seeds`, one a variant; `stream` makes the batches of distinct seeds.

        `compile_mode`: "reduce-overhead" makes the step a CUDA graph, "default" compiles the network.
        """
        super().__init__(optimizers, ema, text, steps)
        self.backbone: StackedBackbone = backbone
        self.formulation: StackedFormulation = formulation
        self.autoencoder, self.clip_norm, self._stream = autoencoder, clip_norm, stream
        self.seeds = list(dict.fromkeys(seeds))
        self.register_buffer("seed_of", torch.tensor([self.seeds.index(s) for s in seeds]), persistent=False)
        self._records: Coefficients | None = None  # of the current block of steps, [V, BLOCK * B]
        self._first = 0  # step of the block
        # What is differentiated with mixed precision: the weights in the lower one, so that their gradient is of that,
        # too. Made at the first step of a fit, when all that is restored is, and kept up to date by the optimiser.
        self._copy: Tensor | None = None
        self._gradient: Tensor | None = None  # [V, P] in the precision of what is differentiated
        self.compile_mode = compile_mode
        self._losses: Callable[..., Tensor] = (
            torch.compile(stacked_losses, dynamic=False) if compile_mode == "default" else stacked_losses
        )

    def train_dataloader(self) -> Iterable[tuple[Batch, ...]]:
        """One batch a distinct seed; starts at the step that is next."""
        return _Together(self._stream(self.device, self.seeds), self)

    def training_step(self, batches: tuple[Batch, ...], _: int) -> None:
        """The whole step, update included: there is nothing left for the trainer to do."""
        step, device = self.global_step, self.device
        x0s, eps, texts = [], [], []
        for seed, batch in zip(self.seeds, batches, strict=True):
            x0s.append(self.autoencoder.encode(batch.images))
            eps.append(draws.noise(seed, step, x0s[-1], len(batch.images)))
            kept = draws.kept(seed, step, self.text, len(batch.images), device)
            texts.append(self.text.drop(batch.text, kept))
        x0, noise = self._per_variant(x0s), self._per_variant(eps)
        if self._gradient is None:
            working = self.backbone.working().detach()
            self._copy = None if working.dtype == self.backbone.flat.dtype else working
            self._gradient = torch.empty_like(working)
        self._advance(x0, noise, self._text(texts), *self._at(step, len(x0s[0]), x0.dtype))

    def _update(self, x0: Tensor, noise: Tensor, text: Text, *records: Tensor) -> None:
        """From images and draws to weights. On a GPU one CUDA graph: only the values of tensors may change."""
        assert self._gradient is not None
        weights = self.backbone.flat if self._copy is None else self._copy
        losses = differentiate(
            self._losses, self.backbone, weights, self._gradient, Coefficients(*records), x0, noise, text
        )
        with torch.autocast(self.device.type, enabled=False):
            adamw = self._adamw()
            step = adamw.finished + 1
            self.note_loss(losses, step)
            # Each is clipped by its own norm; where that is not finite the variant stops here.
            norms = torch.linalg.vector_norm(self._gradient, dim=1, dtype=self.backbone.flat.dtype)
            self.note_norm(norms, step)
            adamw.update(self._gradient, clip_factors(norms, self.clip_norm), self.diverged_at == 0, self._copy)

    def _per_variant(self, each: Sequence[Tensor]) -> Tensor:
        """[1, ...] where all variants share it, else [V, ...]."""
        return each[0][None] if len(each) == 1 else torch.stack(list(each)).index_select(0, self.seed_of)

    def _text(self, each: Sequence[Text]) -> Text:
        if len(each) == 1:
            return each[0]
        return Text(
            tuple(self._per_variant(x) for x in zip(*(text.tokens for text in each), strict=True)),
            tuple(self._per_variant(x) for x in zip(*(text.pooled for text in each), strict=True)),
        )

    def _at(self, step: int, n: int, dtype: torch.dtype) -> list[Tensor]:
        """The fields [V, B] of a step's records: those of `BLOCK` steps are computed at once."""
        first = step - step % BLOCK
        if self._records is None or first != self._first:
            each = [[draws.times(s, i, n, self.device) for i in range(first, first + BLOCK)] for s in self.seeds]
            u = torch.stack([torch.cat(steps) for steps in each])  # [seeds, BLOCK * B]
            u = u[0] if len(u) == 1 else u.index_select(0, self.seed_of)
            self._first, self._records = first, self.formulation.coefficients(u).to(dtype)
        place = (step - first) * n
        block = self._records
        return [getattr(block, field.name)[:, place : place + n] for field in fields(block)]

    def _adamw(self) -> StackedAdamW:
        adamw = self.trainer.optimizers[0]
        assert isinstance(adamw, StackedAdamW)
        return adamw

    def configure_optimizers(self) -> StackedAdamW:
        return StackedAdamW(self.backbone.flat, self.rates, self.steps)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._records = self._copy = self._gradient = None
        self._advance: Callable[..., None] = (
            Captured(self._update) if self.compile_mode == "reduce-overhead" else self._update
        )

    def on_fit_end(self) -> None:
        del self._advance  # and the memory of its graph
        self._copy = self._gradient = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["diverged_at"] = self.diverged_at.tolist()

    def member(self, i: int) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        row = self.backbone.flat[i].detach().to("cpu", copy=True)
        return prefixed(self.backbone.member(row)), member_ema(self.backbone, self.ema.state_dict(), i)


def differentiate(
    losses_of: Callable[..., Tensor], backbone: StackedBackbone, flat: Tensor, gradient: Tensor, *inputs: Any
) -> Tensor:
    """The losses [V] with weights `flat` [V, P]; their gradients go to `gradient` [V, P]."""
    leaves = {name: w.detach().requires_grad_() for name, w in backbone.cut(flat).items()}
    weights, places = list(leaves.values()), list(backbone.cut(gradient).values())
    losses = losses_of(backbone, leaves, *inputs)
    with torch.autocast(flat.device.type, enabled=False), gradients_in(weights, places) as written:
        # vmap inside, the sum and the backward pass outside
        grads = torch.autograd.grad(losses.sum(), weights, allow_unused=True)
        whole = []
        for i, (place, grad) in enumerate(zip(places, grads, strict=True)):
            if i not in written:
                whole.append((place, torch.zeros_like(place) if grad is None else grad))
            elif grad is not None:
                place.add_(grad)
        torch._foreach_copy_([place for place, _ in whole], [grad for _, grad in whole])
    return losses.detach()


def stacked_losses(
    backbone: StackedBackbone, weights: Mapping[str, Tensor], c: Coefficients, x0: Tensor, eps: Tensor, text: Text
) -> Tensor:
    """[V] from weights by name [V, *shape], records [V, B], images and noise [V or 1, B, C, H, W] and the text."""
    each = c.expand_to(x0)
    out = backbone.call(weights, each.c_in * each.z(x0, eps), c.label.float(), text)
    return (each.weight * (out.to(x0.dtype) - each.target(x0, eps)).square()).flatten(1).mean(1)


def member_ema(backbone: StackedBackbone, ema: Mapping[str, Any], i: int) -> dict[str, Any]:
    """The EMA state of variant i alone."""
    return {**ema, "shadow": backbone.cut(ema["shadow"]["flat"][i].to("cpu", copy=True))}


class _Together:
    """An endless iterable of one batch a seed, from the module's step on."""

    def __init__(self, streams: Sequence[Batches], module: StackedModule) -> None:
        self.streams, self.module = streams, module

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        step = self.module.global_step
        return zip(*(stream.iterate(step) for stream in self.streams), strict=True)
