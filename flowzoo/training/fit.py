"""Trains a run, or a stack of them, to the last step, from the start or from where it was interrupted."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from hydra.utils import get_object, instantiate
from lightning import Trainer
from lightning.pytorch.plugins.io import CheckpointIO
from omegaconf import DictConfig
from torch import Tensor

from flowzoo.build import Built, BuiltStack, compile_mode_of, device_of, precision_of, stack_of_one
from flowzoo.data.loader import Batches
from flowzoo.data.source import Source, shuffled
from flowzoo.encoders.text import TextEncoders
from flowzoo.metrics.validation import ValidationBatch, validation_loss
from flowzoo.runs.signals import Notice
from flowzoo.runs.store import Run, RunError
from flowzoo.training import checkpoint
from flowzoo.training.cadence import Cadence
from flowzoo.training.checkpoint import LAST, AtomicIO
from flowzoo.training.members import Members
from flowzoo.training.module import Trained, TrainingModule
from flowzoo.training.optimizer import is_stackable, not_stackable
from flowzoo.training.sharded import strategy_of
from flowzoo.training.stacked import StackedModule
from flowzoo.training.surroundings import environments_of


@dataclass(frozen=True)
class Outcome:
    step: int
    diverged_at: list[int | None]  # of each run
    interrupted: bool


def fit(cfg: DictConfig, run: Run, built: Built, train: Source, val: Source, until: int | None = None) -> Outcome:
    """Trains to the last step, or to `until`, where checkpoints/ holds last.ckpt and best.ckpt.

    Says how far it came and why it ended. Alone on a GPU a run is a stack of one, whose step is one CUDA graph.
    """
    if is_captured(cfg):
        return fit_stack([cfg], [run], stack_of_one(built), train, val, step_of(run), until)
    batches: list[Batches] = []

    def stream(on: torch.device, rank: int, world: int) -> Batches:
        built.text.to(on)
        batches.append(batches_of(cfg, built.text, train, on, rank, world))
        return batches[-1]

    module = solo_module(cfg, built, compile_mode_of(cfg, device_of(cfg)), stream)
    wait = lambda: sum(b.wait for b in batches)  # noqa: E731
    resume = (run.path / "checkpoints" / LAST).is_file()
    return train_module([cfg], [run], module, val, wait, AtomicIO(), resume, until)


def solo_module(
    cfg: DictConfig, built: Built, compile_mode: str | None, stream: Callable[[torch.device, int, int], Batches]
) -> TrainingModule:
    return TrainingModule(
        built.backbone,
        built.formulation,
        built.autoencoder,
        built.text,
        instantiate(cfg.ema, backbone=built.backbone),
        instantiate(cfg.optimizer),
        seed=cfg.seed,
        steps=cfg.trainer.steps,
        clip_norm=cfg.trainer.clip_norm,
        compile_mode=compile_mode,
        stream=stream,
    )


def step_of(run: Run) -> int:
    """The step of a run's last checkpoint; 0 where there is none."""
    path = run.path / "checkpoints" / LAST
    return checkpoint.step_of(path) if path.is_file() else 0


def is_captured(cfg: DictConfig) -> bool:
    """Whether the run's steps can be CUDA graphs: on one GPU."""
    t = cfg.trainer
    alone = (t.devices, t.num_nodes, t.strategy) == (1, 1, "auto")
    return alone and compile_mode_of(cfg, device_of(cfg)) == "reduce-overhead"


def check_optimizer(cfg: DictConfig, stacked: bool) -> None:
    """Raises RunError for an optimiser of one's own where a stack's update would silently take its place."""
    if (stacked or is_captured(cfg)) and not is_stackable(get_object(cfg.optimizer._target_)):
        raise RunError(not_stackable(cfg.optimizer._target_))


def fit_stack(
    cfgs: Sequence[DictConfig],
    runs: Sequence[Run],
    built: BuiltStack,
    train: Source,
    val: Source,
    step: int,
    until: int | None = None,
) -> Outcome:
    """Trains runs that stand at the same `step` together, to the last step or to `until`."""
    cfg = cfgs[0]
    device = device_of(cfg)
    batches: list[Batches] = []

    def stream(on: torch.device, seeds: Sequence[int]) -> Sequence[Batches]:
        built.text.to(on)
        first = batches_of(cfg, built.text, train, on)
        batches.extend(first if seed == cfg.seed else first.reseeded(seed) for seed in seeds)
        return batches

    module = stacked_module(cfgs, built, compile_mode_of(cfg, device), stream)
    paths = [run.path / "checkpoints" / LAST for run in runs]
    checkpoints = Members(paths, built.backbone, module.rates, cfg.trainer.steps, device)
    return train_module(cfgs, runs, module, val, lambda: sum(b.wait for b in batches), checkpoints, step > 0, until)


def stacked_module(
    cfgs: Sequence[DictConfig],
    built: BuiltStack,
    compile_mode: str | None,
    stream: Callable[[torch.device, Sequence[int]], Sequence[Batches]],
) -> StackedModule:
    cfg = cfgs[0]
    return StackedModule(
        built.backbone,
        built.formulation,
        built.autoencoder,
        built.text,
        instantiate(cfg.ema, backbone=built.backbone),
        [instantiate(one.optimizer) for one in cfgs],
        seeds=[one.seed for one in cfgs],
        steps=cfg.trainer.steps,
        clip_norm=cfg.trainer.clip_norm,
        compile_mode=compile_mode,
        stream=stream,
    )


def batches_of(
    cfg: DictConfig, text: TextEncoders, train: Source, device: torch.device, rank: int = 0, world: int = 1
) -> Batches:
    return Batches(
        train,
        text,
        batch_size=cfg.trainer.batch_size,
        seed=cfg.seed,
        device=device,
        cache=cfg.data.cache,
        workers=cfg.data.workers,
        rank=rank,
        world=world,
    )


def train_module(
    cfgs: Sequence[DictConfig],
    runs: Sequence[Run],
    module: Trained,
    val: Source,
    waited: Callable[[], float],
    checkpoints: CheckpointIO,
    resume: bool,
    until: int | None = None,
) -> Outcome:
    """Lightning's trainer around a module that trains `runs`. What they have in common is in the first config."""
    cfg = cfgs[0]
    t, device = cfg.trainer, device_of(cfg)
    held_out: list[ValidationBatch] = []

    def validate() -> dict[str, Tensor]:
        if not held_out:
            held_out.append(_held_out(cfg, module, val))
        losses = {}
        module.backbone.eval()
        with trainer.precision_plugin.forward_context():
            losses["raw"] = _validation_loss(module, held_out[0], t.batch_size)
            with module.ema.applied(module.backbone):
                losses["ema"] = _validation_loss(module, held_out[0], t.batch_size)
        module.backbone.train()
        return {weights: x.reshape(len(runs), -1) for weights, x in losses.items()}

    notice = Notice()
    cadence = Cadence(
        runs,
        validate,
        notice,
        waited,
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
        strategy=strategy_of(t.strategy),
        num_nodes=t.num_nodes,
        precision=precision_of(cfg, device),  # type: ignore[arg-type]
        max_steps=t.steps,
        max_epochs=-1,
        logger=[instantiate(one.logger) for one in cfgs] if cfg.logger else False,
        callbacks=[cadence],
        plugins=[checkpoints, *environments_of(cfg)],
        default_root_dir=runs[0].path,  # where Lightning looks for a scheduler's checkpoints: never another run's
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    try:
        with notice.listening():
            trainer.fit(module, ckpt_path=cadence.last if resume else None, weights_only=True)
    except SystemExit as error:  # what Lightning makes of a KeyboardInterrupt
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    # after the last step nobody asked the notice again
    return Outcome(trainer.global_step, cadence.diverged_at, cadence.interrupted or notice.signal is not None)


def _validation_loss(module: Trained, batch: ValidationBatch, size: int) -> Tensor:
    """In pieces as large as the memory allows: on a GPU the training step's graph keeps what a step needs."""
    while True:
        try:
            return validation_loss(module.backbone, module.formulation, batch, size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        size //= 2


def _held_out(cfg: DictConfig, module: Trained, val: Source) -> ValidationBatch:
    indices = shuffled(val, min(cfg.trainer.val_samples, len(val)))
    images = torch.from_numpy(val.images(indices)).to(module.device)
    return ValidationBatch.of(module.autoencoder.encode(images), module.text.encode([val.prompt(i) for i in indices]))
