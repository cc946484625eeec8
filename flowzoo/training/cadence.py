"""What happens between two steps, in the one order that makes an interrupted run equal an undisturbed one."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from flowzoo.runs.store import Run
from flowzoo.training.checkpoint import beside, publish, save_weights
from flowzoo.training.module import TrainingModule
from flowzoo.training.progress import TrainingProgress
from flowzoo.training.signals import Notice


class Cadence(Callback):
    """EMA, records, divergence, validation, checkpoint, interruption: in this order after every step.

    A checkpoint is written after everything else of its step, so going on from it repeats nothing and skips nothing.
    `validate` returns {"raw": {t: loss}, "ema": {t: loss}}; the weights with the lowest EMA loss are kept as best.ckpt.
    """

    def __init__(
        self,
        run: Run,
        validate: Callable[[], dict[str, dict[float, float]]],
        notice: Notice,
        waited: Callable[[], float],
        batch_size: int,
        log_every: int,
        val_every: int,
        checkpoint_every: int,
    ) -> None:
        self.run, self.validate, self.notice, self.waited = run, validate, notice, waited
        self.batch_size = batch_size
        self.log_every, self.val_every, self.checkpoint_every = log_every, val_every, checkpoint_every
        self.best = math.inf
        self.diverged_at: int | None = None
        self.interrupted = False

    @property
    def last(self) -> Path:
        return self.run.path / "checkpoints" / "last.ckpt"

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        if trainer.is_global_zero:
            self.run.truncate_metrics(trainer.global_step)
        self.notice.install()  # again: Lightning has just put its own SIGTERM handler before ours
        self.progress = TrainingProgress(self.run.path.name, module.steps, trainer.global_step)
        self._since = (time.perf_counter(), trainer.global_step, self.waited())

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        assert isinstance(module, TrainingModule)
        step = trainer.global_step
        end = step == module.steps
        due = lambda every: end or step % every == 0  # noqa: E731
        module.ema.update(module.backbone, step)
        self.progress.advance(step)
        stop = self.notice.given(trainer)
        validating, saving = due(self.val_every), due(self.checkpoint_every) or stop
        if due(self.log_every) or validating or saving:
            self._look_for_divergence(module, {})
        if self.diverged_at is None:
            if due(self.log_every):
                self._record(trainer, module, step)
            if validating:
                self._validate(trainer, module, step)
        if self.diverged_at is not None:
            trainer.should_stop = True
            return
        if saving:
            self._save(trainer)
        if stop and not end:
            self.interrupted = trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.progress.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "progress"):
            self.progress.close()

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(beside(self.last))  # every process takes part; the first one writes
        if trainer.is_global_zero:
            publish(self.last)

    def _look_for_divergence(self, module: TrainingModule, losses: dict[str, float]) -> None:
        if at := int(module.diverged_at):
            self.diverged_at = at
        elif not all(math.isfinite(x) for x in losses.values()):
            self.diverged_at = module.global_step

    def _record(self, trainer: Trainer, module: TrainingModule, step: int) -> None:
        loss, norm = module.take_means()
        now, waited = time.perf_counter(), self.waited()
        then, step_then, waited_then = self._since
        self._since = (now, step, waited)
        images_per_s = (step - step_then) * self.batch_size / (now - then)
        wait = (waited - waited_then) / (now - then)
        self.progress.update(step, loss, images_per_s, wait)
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        numbers = {"train_loss": loss, "grad_norm": norm, "lr": lr, "images_per_s": images_per_s, "loader_wait": wait}
        self._write(trainer, {"step": step, **numbers})

    def _validate(self, trainer: Trainer, module: TrainingModule, step: int) -> None:
        by_t = self.validate()
        losses = {f"val_loss_{weights}": sum(at.values()) / len(at) for weights, at in by_t.items()}
        self._look_for_divergence(module, losses)
        if self.diverged_at is not None:
            return
        self._write(
            trainer, {"step": step, **losses, "val_loss_by_t": {w: list(at.values()) for w, at in by_t.items()}}
        )
        self.progress.say(
            f"{self.run.path.name}  step {step}/{module.steps}  validation loss "
            f"{losses['val_loss_ema']:.4f} (EMA), {losses['val_loss_raw']:.4f} (raw)"
        )
        if losses["val_loss_ema"] < self.best:
            self.best = losses["val_loss_ema"]
            if trainer.is_global_zero:
                save_weights(self.last.with_name("best.ckpt"), module.backbone, module.ema, step, self.best)

    def _write(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            self.run.append_metrics(record)
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=record["step"])

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
