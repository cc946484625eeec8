"""One training step of any formulation on any backbone, as a Lightning module."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from flowzoo.data.loader import Batch, Batches
from flowzoo.encoders.autoencoder import Pixels
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.training import draws
from flowzoo.training.checkpoint import prefixed
from flowzoo.training.ema import EMA
from flowzoo.training.optimizer import Optimizer
from flowzoo.training.sharded import shard, whole


class Trained(LightningModule):
    """What is known of the training of V variants; V = 1 for a run alone.

    What happened since the last look is kept on the device, so that looking is rare and the GPU never waits.
    """

    loss_sum: Tensor  # [V], as the next two
    norm_sum: Tensor
    diverged_at: Tensor  # number (from 1) of the first step with a non-finite loss or gradient norm, 0 for none
    loss_count: Tensor  # []
    backbone: nn.Module
    formulation: Formulation | StackedFormulation
    autoencoder: Pixels

    def __init__(self, optimizers: Sequence[Optimizer], ema: EMA, text: TextEncoders, steps: int) -> None:
        super().__init__()
        self.rates, self.ema, self.text, self.steps = optimizers, ema, text, steps
        for name, shape in (("loss_sum", len(optimizers)), ("norm_sum", len(optimizers)), ("loss_count", ())):
            self.register_buffer(name, torch.zeros(shape), persistent=False)
        self.register_buffer("diverged_at", torch.zeros(len(optimizers), dtype=torch.long), persistent=False)

    def transfer_batch_to_device(self, batch: Any, *_: Any) -> Any:
        return batch  # it is made there

    @torch.no_grad()
    def note_loss(self, loss: Tensor, step: int | Tensor) -> None:
        """loss [V] of step number `step`, from 1."""
        self.loss_sum += loss.detach()
        self.loss_count += 1
        self._flag(loss, step)

    @torch.no_grad()
    def note_norm(self, norm: Tensor, step: int | Tensor) -> None:
        """norm [V] of step number `step`, from 1."""
        self.norm_sum += norm
        self._flag(norm, step)

    @torch.no_grad()
    def _flag(self, values: Tensor, step: int | Tensor) -> None:
        bad = ~torch.isfinite(values) & (self.diverged_at == 0)
        self.diverged_at.copy_(torch.where(bad, step, self.diverged_at))

    def take_means(self) -> list[tuple[float, float]]:
        """Mean loss and gradient norm of each variant since the last call. Waits for the device."""
        losses, norms = ((x / self.loss_count.clamp(min=1)).tolist() for x in (self.loss_sum, self.norm_sum))
        for buffer in (self.loss_sum, self.norm_sum, self.loss_count):
            buffer.zero_()
        return list(zip(losses, norms, strict=True))

    def learning_rates(self) -> list[float]:
        """Of each variant, for the next step."""
        return [o.lr * o.factor(self.global_step, self.steps) for o in self.rates]

    def member(self, i: int) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The `state_dict` and `ema` entries of variant i's checkpoint. Every process takes part."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        self.ema.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = self.ema.state_dict()
        count = [float(self.loss_count)] * len(self.loss_sum)
        checkpoint["since_last_record"] = [self.loss_sum.tolist(), self.norm_sum.tolist(), count]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.ema.load_state_dict(checkpoint["ema"])
        loss, norm, count = checkpoint["since_last_record"]
        self.loss_sum.copy_(torch.tensor(loss, dtype=torch.float64))
        self.norm_sum.copy_(torch.tensor(norm, dtype=torch.float64))
        self.loss_count.fill_(count[0])


class TrainingModule(Trained):
    """Draws t and noise, asks the formulation for one record a sample, and fits the target.

    Every random number is a function of (seed, step, purpose): two variants see the same images, captions, u, eps and
    dropout, and a resumed run goes on with the draws that it would have had.
    Checkpoints hold the backbone's parameters and nothing else.
    """

    def __init__(
        self,
        backbone: nn.Module,
        formulation: Formulation,
        autoencoder: Pixels,
        text: TextEncoders,
        ema: EMA,
        optimizer: Optimizer,
        seed: int,
        steps: int,
        clip_norm: float | None,
        compile_mode: str | None,
        stream: Callable[[torch.device, int, int], Batches],
    ) -> None:
        super().__init__([optimizer], ema, text, steps)
        self.backbone, self.formulation, self.autoencoder = backbone, formulation, autoencoder
        self.optimizer, self.seed, self.clip_norm = optimizer, seed, clip_norm
        self._stream = stream
        # Compiling the function, not the module, leaves the parameters' names plain.
        self.network: Callable[[Tensor, Tensor, Text], Tensor] = (
            torch.compile(backbone.forward, mode=compile_mode, dynamic=False) if compile_mode else backbone.forward
        )

    def configure_model(self) -> None:
        """Under `trainer.strategy=fsdp` each process keeps a share of the weights, and a module's hooks gather them."""
        if self.device_mesh is not None:
            self.backbone = copy.deepcopy(self.backbone)  # whose caller keeps it whole
            shard(self.backbone, self.device_mesh["data_parallel"])
            self.ema.split_as(self.backbone)
            self.network = self.backbone.__call__

    def train_dataloader(self) -> Iterable[Batch]:
        """Made here, where the device and the rank are known; starts at the step that is next."""
        batches = self._stream(self.device, self.global_rank, self.trainer.world_size)
        return _From(batches, self)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        x0 = self.autoencoder.encode(batch.images)
        n, world, step = len(x0), self.trainer.world_size, self.global_step
        share = slice(self.global_rank * n, (self.global_rank + 1) * n)  # of the draws for the whole batch
        u = draws.times(self.seed, step, n * world, self.device)[share]
        eps = draws.noise(self.seed, step, x0, n * world)[share]
        kept = draws.kept(self.seed, step, self.text, n * world, self.device)[share]
        text = self.text.drop(batch.text, kept)
        record = self.formulation.coefficients(u).to(x0.dtype)
        c = record.expand_to(x0)
        out = self.network(c.c_in * c.z(x0, eps), record.label.float(), text)
        loss = (c.weight * (out.to(x0.dtype) - c.target(x0, eps)).square()).mean()
        self.note_loss(loss[None], step + 1)
        return loss

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        bound = self.clip_norm if self.clip_norm is not None else float("inf")
        self.note_norm(whole(nn.utils.clip_grad_norm_(self.backbone.parameters(), bound))[None], self.global_step + 1)

    def configure_optimizers(self) -> Any:
        adamw = self.optimizer.adamw(self.backbone.parameters(), self.device)
        schedule = self.optimizer.schedule(adamw, self.steps)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def member(self, i: int) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        state = {name: whole(value) for name, value in self.backbone.state_dict().items()}
        return prefixed(state), self.ema.state_dict()


class _From:
    """An endless iterable that begins at the module's step, whenever Lightning asks."""

    def __init__(self, batches: Batches, module: TrainingModule) -> None:
        self.batches, self.module = batches, module

    def __iter__(self) -> Iterator[Batch]:
        return self.batches.iterate(self.module.global_step)
