"""What happens between two steps, in the one order that makes an interrupted run equal an undisturbed one."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from flowzoo.runs import signals
from flowzoo.runs.signals import Notice
from flowzoo.runs.store import Run
from flowzoo.training.checkpoint import BEST, LAST, save_weights, weights_of
from flowzoo.training.program import Program
from flowzoo.training.progress import TrainingProgress


class Cadence(Callback):
    """Divergence, records, validation, checkpoint, interruption: in this order after every step of V runs.

    A checkpoint is written after everything else of its step, so going on from it repeats nothing and skips nothing. Of
    each run the weights with the lowest validation loss of their average are kept as best.ckpt. A run that diverged is
    left as it was; the others go on, until none is left. At step `until` everything is saved and training pauses.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        program: Program,
        notice: Notice,
        batch_size: int,
        log_every: int,
        val_every: int,
        checkpoint_every: int,
        until: int | None = None,
    ) -> None:
        self.runs, self.program, self.notice = runs, program, notice
        self.batch_size, self.until = batch_size, until
        self.log_every, self.val_every, self.checkpoint_every = log_every, val_every, checkpoint_every
        self.diverged_at: list[int | None] = [None] * len(runs)
        self.interrupted = self._over = False

    @property
    def last(self) -> Path:
        """What the trainer is told to save to and to load from."""
        return self.runs[0].path / "checkpoints" / LAST

    @property
    def alive(self) -> list[int]:
        return [i for i, at in enumerate(self.diverged_at) if at is None]

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            for run in self.runs:
                run.truncate_metrics(trainer.global_step)
        signals.install()  # again: Lightning has just put its own SIGTERM handler before ours
        title = self.runs[0].path.name if len(self.runs) == 1 else f"{len(self.runs)} variants"
        self.progress = TrainingProgress(title, self.program.steps, trainer.global_step)
        self._since = (time.perf_counter(), trainer.global_step, self.program.task.waited)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        end = step == self.program.steps
        due = lambda every: end or step % every == 0  # noqa: E731
        self.progress.advance(step)
        stop = self.notice.given(trainer)
        pause = stop or step == self.until
        validating, saving = due(self.val_every), due(self.checkpoint_every) or pause
        if due(self.log_every) or validating or saving:
            self._look_for_divergence()
        if self.alive:
            if due(self.log_every):
                self._record(trainer, step)
            if validating:
                self._validate(trainer, step)
        if not self.alive:
            trainer.should_stop = self._over = True
            return
        if saving:
            self._save(trainer)
        if pause:  # at the last step, too: scoring can wait, a scheduler's notice cannot
            self.interrupted, trainer.should_stop, self._over = stop, True, True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.global_step < self.program.steps and not self._over:  # a callback had it stop
            self._look_for_divergence()
            if self.alive:
                self._save(trainer)
                self.interrupted = True
        self.progress.close()

    def _save(self, trainer: Trainer) -> None:
        for run in self.runs:
            run.check_lock()
        trainer.save_checkpoint(self.last)  # every process takes part; the first one writes

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if hasattr(self, "progress"):
            self.progress.close()

    def _look_for_divergence(self) -> None:
        for i, at in enumerate(self.program.diverged_at.tolist()):
            if at and self.diverged_at[i] is None:
                self.diverged_at[i] = at
                if len(self.runs) > 1:
                    self.progress.say(f"{self.runs[i].path.name}  diverged at step {at}")

    def _record(self, trainer: Trainer, step: int) -> None:
        now, waited = time.perf_counter(), self.program.task.waited
        then, step_then, waited_then = self._since
        self._since = (now, step, waited)
        images_per_s = (step - step_then) * self.batch_size / (now - then)
        wait = (waited - waited_then) / (now - then)
        means, rates = self.program.take_means(), self.program.learning_rates(step)
        for i in self.alive:
            loss, norm = means[i]
            numbers = {"train_loss": loss, "grad_norm": norm, "lr": rates[i]}
            self._write(trainer, i, {"step": step, **numbers, "images_per_s": images_per_s, "loader_wait": wait})
        steps_per_s = len(self.alive) * (step - step_then) / (now - then)
        self.progress.update(step, [means[i][0] for i in self.alive], images_per_s, steps_per_s, wait)

    def _validate(self, trainer: Trainer, step: int) -> None:
        program = self.program
        by_t = {weights: losses.tolist() for weights, losses in program.validate().items()}
        by_t = trainer.strategy.broadcast(by_t)  # all must agree on what is best
        shown, better = [], []
        for i in self.alive:
            losses = {f"val_loss_{weights}": sum(all[i]) / len(all[i]) for weights, all in by_t.items()}
            if not all(math.isfinite(x) for x in losses.values()):
                program.diverged_at[i] = step
                continue
            self._write(trainer, i, {"step": step, **losses, "val_loss_by_t": {w: all[i] for w, all in by_t.items()}})
            shown.append(losses)
            if losses["val_loss_ema"] < program.best[i]:
                program.best[i] = losses["val_loss_ema"]
                better.append(i)
        if better:
            state = program.state()  # every process takes part; the first one writes
            for i in better if trainer.is_global_zero else []:
                best = self.runs[i].path / "checkpoints" / BEST
                save_weights(best, weights_of(program.network, state, i), step, program.best[i])
        self._look_for_divergence()
        if shown:
            self.progress.validated(step, [(x["val_loss_ema"], x["val_loss_raw"]) for x in shown])

    def _write(self, trainer: Trainer, i: int, record: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            self.runs[i].append_metrics(record)
        numbers = {key: value for key, value in record.items() if isinstance(value, int | float)}
        for logger in trainer.loggers[i : i + 1]:  # one a run, or none
            logger.log_metrics(numbers, step=record["step"])
