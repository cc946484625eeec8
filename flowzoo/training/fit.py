"""Trains V runs together, V >= 1, from the step at which they stand to the last one."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hydra.utils import get_object, instantiate
from lightning import Trainer
from omegaconf import DictConfig

from flowzoo.build import Built, compile_mode_of, device_of, is_half, processes_of
from flowzoo.data.loader import Batches
from flowzoo.data.source import Source
from flowzoo.runs.signals import Notice
from flowzoo.runs.store import Run, RunError
from flowzoo.tasks.formulation import FormulationTask
from flowzoo.training import checkpoint
from flowzoo.training.cadence import Cadence
from flowzoo.training.checkpoint import LAST, Checkpoints
from flowzoo.training.module import TrainingModule
from flowzoo.training.optimizer import is_ours, not_ours
from flowzoo.training.processes import strategy_of
from flowzoo.training.program import Program
from flowzoo.training.surroundings import environments_of


@dataclass(frozen=True)
class Outcome:
    step: int
    diverged_at: list[int | None]  # of each run
    interrupted: bool


def fit(
    cfgs: Sequence[DictConfig],
    runs: Sequence[Run],
    built: Built,
    train: Source,
    val: Source,
    step: int,
    until: int | None = None,
) -> Outcome:
    """Trains runs that stand at the same `step`, to the last step or to `until`.

    Afterwards checkpoints/ of each holds last.ckpt and best.ckpt. Says how far they came and why it ended.
    """
    program = program_of(cfgs, built, train, val, compile_mode_of(cfgs[0], device_of(cfgs[0])))
    return train_program(cfgs, runs, program, step > 0, until)


def step_of(run: Run) -> int:
    """The step of a run's last checkpoint; 0 where there is none."""
    path = run.path / "checkpoints" / LAST
    return checkpoint.step_of(path) if path.is_file() else 0


def check_optimizer(cfg: DictConfig) -> None:
    """Raises RunError for an optimiser of one's own, whose place flowzoo's AdamW would silently take."""
    if not is_ours(get_object(cfg.optimizer._target_)):
        raise RunError(not_ours(cfg.optimizer._target_))


def program_of(
    cfgs: Sequence[DictConfig], built: Built, train: Source, val: Source, compile_mode: str | None
) -> Program:
    """What trains these runs; what they have in common is in the first config."""
    cfg = cfgs[0]

    def stream(device: torch.device, seeds: Sequence[int], rank: int, world: int) -> list[Batches]:
        first = Batches(
            train,
            built.text,
            batch_size=cfg.trainer.batch_size,
            seed=seeds[0],
            device=device,
            cache=cfg.data.cache,
            workers=cfg.data.workers,
            rank=rank,
            world=world,
        )
        return [first, *map(first.reseeded, seeds[1:])]

    task = FormulationTask(
        built.formulation,
        built.autoencoder,
        built.text,
        val,
        seeds=[one.seed for one in cfgs],
        val_samples=cfg.trainer.val_samples,
        batch_size=cfg.trainer.batch_size,
        stream=stream,
    )
    return Program(
        built.network,
        task,
        instantiate(cfg.ema),
        [instantiate(one.optimizer) for one in cfgs],
        steps=cfg.trainer.steps,
        clip_norm=cfg.trainer.clip_norm,
        mixed=is_half(cfg, device_of(cfg)),
        compile_mode=compile_mode,
    )


def train_program(
    cfgs: Sequence[DictConfig], runs: Sequence[Run], program: Program, resume: bool, until: int | None = None
) -> Outcome:
    """Lightning's trainer around a program that trains `runs`."""
    cfg = cfgs[0]
    t = cfg.trainer
    notice = Notice()
    cadence = Cadence(
        runs,
        notice,
        batch_size=t.batch_size,
        log_every=t.log_every,
        val_every=t.val_every,
        checkpoint_every=t.checkpoint_every,
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
        accelerator=t.accelerator,
        devices=t.devices,
        strategy=strategy_of(processes_of(cfg)),
        num_nodes=t.num_nodes,
        precision="64-true" if t.precision == "64-true" else "32-true",  # the program itself mixes precisions
        max_steps=t.steps,
        max_epochs=-1,
        logger=[instantiate(one.logger) for one in cfgs] if cfg.logger else False,
        callbacks=[cadence],
        plugins=[
            Checkpoints([run.path / "checkpoints" / LAST for run in runs], program.network),
            *environments_of(cfg),
        ],
        default_root_dir=runs[0].path,  # where Lightning looks for a scheduler's checkpoints: never another run's
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    module = TrainingModule(program, t.strategy)
    try:
        with notice.listening():
            trainer.fit(module, ckpt_path=cadence.last if resume else None, weights_only=True)
    except SystemExit as error:  # what Lightning makes of a KeyboardInterrupt
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    # after the last step nobody asked the notice again
    return Outcome(trainer.global_step, cadence.diverged_at, cadence.interrupted or notice.signal is not None)
