"""Trains V runs together under Lightning's trainer, V >= 1, from the step at which they stand to the last one."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from flowzoo.data.loader import Batches, Encode
from flowzoo.data.source import Encoded
from flowzoo.job import Stack
from flowzoo.runs.files import RunError
from flowzoo.runs.signals import Notice
from flowzoo.runs.store import Run
from flowzoo.tasks.formulation import FormulationTask
from flowzoo.training.cadence import Cadence
from flowzoo.training.checkpoint import LAST, Checkpoints
from flowzoo.training.loop import Loop
from flowzoo.training.processes import part_of, strategy_of
from flowzoo.training.program import Program
from flowzoo.training.surroundings import environments_of


@dataclass(frozen=True)
class Outcome:
    step: int
    diverged_at: list[int | None]  # of each run
    interrupted: bool


def fit(stack: Stack, step: int, until: int | None = None) -> Outcome:
    """Trains jobs whose runs stand at the same `step`, to the last step or to `until`.

    Afterwards checkpoints/ of each holds last.ckpt and best.ckpt. Says how far they came and why it ended.
    """
    first = stack.first
    return train_program(
        stack.runs,
        first.loop,
        program_of(stack, first.loop.compile_mode),
        resume=step > 0,
        until=until,
        loggers=[job.logger() for job in stack.jobs if job.logger],
        callbacks=first.callbacks() if first.callbacks else (),
    )


def program_of(stack: Stack, compile_mode: str | None) -> Program:
    """What trains these jobs."""
    first = stack.first
    loop, model, train = first.loop, first.model, first.train
    assert train is not None
    # Latents are computed once where every image is seen more than once. Pixels are cheaper than what they become.
    repeats = loop.steps * loop.batch_size > len(train)
    encode: Encode | None = model.autoencoder.encode if repeats and not model.sees_pixels else None
    if isinstance(train, Encoded):
        encode = model.autoencoder.scaled

    def stream(device: torch.device, seeds: Sequence[int], rank: int, world: int) -> list[Batches]:
        batches = Batches(
            train,
            model.text,
            batch_size=loop.batch_size,
            seed=seeds[0],
            device=device,
            cache=loop.cache,
            workers=loop.workers,
            rank=rank,
            world=world,
            encode=encode,
        )
        return [batches, *map(batches.reseeded, seeds[1:])]

    task = FormulationTask(
        stack.formulation,
        model.autoencoder,
        model.text,
        first.val,
        seeds=[job.seed for job in stack.jobs],
        val_samples=loop.val_samples,
        batch_size=max(1, loop.batch_size // loop.accumulate),
        stream=stream,
    )
    return Program(
        stack.network,
        task,
        copy(first.ema),
        [job.optimizer for job in stack.jobs],
        first.rate,
        steps=loop.steps,
        clip_norm=loop.clip_norm,
        mixed=loop.is_half,
        compile_mode=compile_mode,
        accumulate=loop.accumulate,
    )


def train_program(
    runs: Sequence[Run],
    loop: Loop,
    program: Program,
    *,
    resume: bool,
    until: int | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Lightning's trainer around a program that trains a variant a run, from the runs' checkpoints if `resume`.

    `loggers`: one a run, or none. `callbacks` only look, after everything of a step is done.
    """
    notice = Notice()
    cadence = Cadence(
        runs,
        program,
        notice,
        batch_size=loop.batch_size,
        log_every=loop.log_every,
        val_every=loop.val_every,
        checkpoint_every=loop.checkpoint_every,
        until=until,
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    # On a CPU torch attends one variant of a stack after another; docs/performance.md says so.
    warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented")
    torch.set_float32_matmul_precision("high")
    # cuDNN's attention backward gives NaN on some shapes of this generation of GPUs.
    torch.backends.cuda.enable_cudnn_sdp(False)
    trainer = Trainer(
        accelerator=loop.accelerator,
        devices=loop.devices if isinstance(loop.devices, int | str) else list(loop.devices),
        strategy=strategy_of(loop.processes),
        num_nodes=loop.num_nodes,
        precision="64-true" if loop.is_double else "32-true",  # the program itself mixes precisions
        max_steps=loop.steps,
        max_epochs=-1,
        logger=list(loggers) or False,
        callbacks=[cadence, *callbacks],
        plugins=[
            Checkpoints([run.path / "checkpoints" / LAST for run in runs], program.network),
            *environments_of(loop),
        ],
        default_root_dir=runs[0].path,  # where Lightning looks for a scheduler's checkpoints: never another run's
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    module = TrainingModule(program, loop.strategy)
    try:
        with notice.listening():
            trainer.fit(module, ckpt_path=cadence.last if resume else None, weights_only=True)
    except torch.OutOfMemoryError as error:
        parts = f"trainer.accumulate={2 * loop.accumulate}" if loop.at_once > 1 else "trainer.strategy=sharded"
        raise RunError(
            f"out of memory with {loop.at_once} of trainer.batch_size={loop.batch_size} at once: {error}; allowed: "
            f"{parts}, which leaves the run what it is" + (", or a smaller stack.size" if len(runs) > 1 else "")
        ) from error
    except SystemExit as error:  # what Lightning makes of a KeyboardInterrupt
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    # after the last step nobody asked the notice again
    return Outcome(trainer.global_step, cadence.diverged_at, cadence.interrupted or notice.signal is not None)


class TrainingModule(LightningModule):
    """Hands Lightning's steps and checkpoints to a `Program`, which updates its weights itself.

    Lightning brings the device, the processes, loggers and callbacks. To callbacks the module shows `program`; its own
    state_dict is empty, and its one optimiser only counts steps.
    """

    def __init__(self, program: Program, strategy: str) -> None:
        """`strategy` is `trainer.strategy`, which says what several processes share."""
        super().__init__()
        self.program, self._strategy = program, strategy
        self.strict_loading = self.automatic_optimization = False

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return _Counts(self.program.optimizers[0].lr)

    def transfer_batch_to_device(self, batch: Any, *_: Any) -> Any:
        return batch  # it is made there

    def train_dataloader(self) -> Iterable[Any]:
        return _From(self)

    def on_fit_start(self) -> None:
        part = part_of(self._strategy, self.global_rank, self.trainer.world_size)
        self.program.begin(self.device, part)

    def training_step(self, batch: Any, _: int) -> None:
        self.program.step(batch, self.global_step)
        self.optimizers().step()  # type: ignore[union-attr]

    def on_fit_end(self) -> None:
        self.program.end()

    def log(self, name: str, *_: Any, **__: Any) -> None:
        """Refused: of V runs nothing would say whose number it is."""
        raise RunError(f"a callback logs {name} by the module; allowed is trainer.loggers, one a run or none")

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["program"] = self.program.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.program.load(checkpoint["program"])


class _From:
    """An endless iterable that begins at the module's step, whenever Lightning asks."""

    def __init__(self, module: TrainingModule) -> None:
        self.module = module

    def __iter__(self) -> Iterator[Any]:
        return iter(self.module.program.task.batches(self.module.global_step))


class _Counts(torch.optim.Optimizer):
    """What Lightning counts steps by; `lr` is the first variant's highest, for those who ask any optimiser."""

    def __init__(self, lr: float) -> None:
        super().__init__([torch.nn.Parameter(torch.empty(0))], {"lr": lr})

    def step(self, closure: Any = None) -> Any:
        """Lightning's closure does nothing; it is called, since Lightning asks for that."""
        return closure() if closure is not None else None
