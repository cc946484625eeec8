"""One training step of any formulation on any backbone, as a Lightning module."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn

from flowzoo.data.loader import Batch, Batches
from flowzoo.encoders.autoencoder import Pixels
from flowzoo.encoders.text import Text, TextEncoders
from flowzoo.formulation.formulation import Formulation
from flowzoo.randomness import generator, uniform
from flowzoo.training.ema import EMA


@dataclass(frozen=True)
class Optimizer:
    """AdamW with linear warm-up (paper, sec. B.3), then linear decay to `decay_to` times the rate at the last step."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    warmup_steps: int
    decay_to: float

    def factor(self, step: int, steps: int) -> float:
        """The factor on `lr` for the step that follows `step` finished ones."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        done = max(0, step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return warm * (1 - (1 - self.decay_to) * min(1.0, done))


class TrainingModule(LightningModule):
    """Draws t and noise, asks the formulation for one record a sample, and fits the target.

    Every random number is a function of (seed, step, purpose): two variants see the same images, captions, u, eps and
    dropout, and a resumed run goes on with the draws that it would have had.
    Checkpoints hold the backbone's parameters and nothing else.
    """

    loss_sum: Tensor
    norm_sum: Tensor
    loss_count: Tensor
    diverged_at: Tensor

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
        super().__init__()
        self.backbone = backbone
        self.formulation, self.autoencoder, self.ema = formulation, autoencoder, ema
        self.optimizer, self.seed, self.steps, self.clip_norm = optimizer, seed, steps, clip_norm
        self._stream = stream
        self.text = text
        # Compiling the function, not the module, leaves the parameters' names plain.
        self.network: Callable[[Tensor, Tensor, Text], Tensor] = (
            torch.compile(backbone.forward, mode=compile_mode, dynamic=False) if compile_mode else backbone.forward
        )
        # What happened since the last look, kept on the device so that looking is rare and the GPU never waits.
        self.register_buffer("loss_sum", torch.zeros(()), persistent=False)
        self.register_buffer("norm_sum", torch.zeros(()), persistent=False)
        self.register_buffer("loss_count", torch.zeros(()), persistent=False)
        self.register_buffer("diverged_at", torch.zeros((), dtype=torch.long), persistent=False)

    def train_dataloader(self) -> Iterable[Batch]:
        """Made here, where the device and the rank are known; starts at the step that is next."""
        batches = self._stream(self.device, self.global_rank, self.trainer.world_size)
        return _From(batches, self)

    def transfer_batch_to_device(self, batch: Batch, *_: Any) -> Batch:
        return batch  # it is made there

    def training_step(self, batch: Batch, _: int) -> Tensor:
        x0 = self.autoencoder.encode(batch.images)
        n, world = len(x0), self.trainer.world_size
        share = slice(self.global_rank * n, (self.global_rank + 1) * n)  # of the draws for the whole batch
        draw = lambda purpose: generator(self.seed, self.global_step, purpose, self.device)  # noqa: E731
        u = uniform((n * world,), draw("u"))[share]
        eps = torch.randn((n * world, *x0.shape[1:]), generator=draw("eps"), device=self.device, dtype=x0.dtype)[share]
        kept = torch.rand((n * world, len(self.text.names)), generator=draw("text"), device=self.device)[share]
        text = self.text.drop(batch.text, kept >= self.text.p_drop)
        c = self.formulation.coefficients(u).image().to(x0.dtype)
        out = self.network(c.c_in * c.z(x0, eps), c.label.flatten().float(), text)
        loss = (c.weight * (out.to(x0.dtype) - c.target(x0, eps)).square()).mean()
        self._note(loss)
        return loss

    @torch.no_grad()
    def _note(self, loss: Tensor) -> None:
        self.loss_sum += loss.detach()
        self.loss_count += 1
        self._flag(loss)

    @torch.no_grad()
    def _flag(self, value: Tensor) -> None:
        """Remembers the number (from 1) of the first step with a non-finite value."""
        bad = ~torch.isfinite(value) & (self.diverged_at == 0)
        self.diverged_at.copy_(torch.where(bad, self.global_step + 1, self.diverged_at))

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        bound = self.clip_norm if self.clip_norm is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self.backbone.parameters(), bound)
        self.norm_sum += norm
        self._flag(norm)

    def configure_optimizers(self) -> Any:
        o = self.optimizer
        adamw = torch.optim.AdamW(
            self.backbone.parameters(),
            lr=o.lr,
            betas=(o.betas[0], o.betas[1]),
            eps=o.eps,
            weight_decay=o.weight_decay,
            fused=self.device.type == "cuda",
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda step: o.factor(step, self.steps))
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.ema.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = self.ema.state_dict()
        checkpoint["since_last_record"] = [float(self.loss_sum), float(self.norm_sum), float(self.loss_count)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.ema.load_state_dict(checkpoint["ema"])
        for buffer, value in zip(
            (self.loss_sum, self.norm_sum, self.loss_count), checkpoint["since_last_record"], strict=True
        ):
            buffer.fill_(value)

    def take_means(self) -> tuple[float, float]:
        """Mean loss and gradient norm since the last call. Waits for the device."""
        loss, norm = (float(x / self.loss_count.clamp(min=1)) for x in (self.loss_sum, self.norm_sum))
        for buffer in (self.loss_sum, self.norm_sum, self.loss_count):
            buffer.zero_()
        return loss, norm


class _From:
    """An endless iterable that begins at the module's step, whenever Lightning asks."""

    def __init__(self, batches: Batches, module: TrainingModule) -> None:
        self.batches, self.module = batches, module

    def __iter__(self) -> Iterator[Batch]:
        return self.batches.iterate(self.module.global_step)
