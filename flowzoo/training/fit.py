"""Trains one run to its last step, from the start or from where it was interrupted."""

import logging
import warnings
from dataclasses import dataclass

import torch
from hydra.utils import instantiate
from lightning import Trainer
from omegaconf import DictConfig

from flowzoo.build import Built, compile_mode_of, device_of, precision_of
from flowzoo.data.loader import Batches
from flowzoo.data.source import Source, shuffled
from flowzoo.metrics.validation import ValidationBatch, validation_loss
from flowzoo.runs.store import Run
from flowzoo.training.cadence import Cadence
from flowzoo.training.module import TrainingModule
from flowzoo.training.signals import Notice


@dataclass(frozen=True)
class Outcome:
    step: int
    diverged_at: int | None
    interrupted: bool


def fit(cfg: DictConfig, run: Run, built: Built, train: Source, val: Source) -> Outcome:
    """Trains; at the end checkpoints/ holds last.ckpt and best.ckpt. Says how far it came and why it ended."""
    t, device = cfg.trainer, device_of(cfg)
    ema = instantiate(cfg.ema, backbone=built.backbone)
    batches: list[Batches] = []

    def stream(on: torch.device, rank: int, world: int) -> Batches:
        built.text.to(on)
        loader = Batches(
            train,
            built.text,
            batch_size=t.batch_size,
            seed=cfg.seed,
            device=on,
            cache=cfg.data.cache,
            workers=cfg.data.workers,
            rank=rank,
            world=world,
        )
        batches.append(loader)
        return loader

    module = TrainingModule(
        built.backbone,
        built.formulation,
        built.autoencoder,
        built.text,
        ema,
        instantiate(cfg.optimizer),
        seed=cfg.seed,
        steps=t.steps,
        clip_norm=t.clip_norm,
        compile_mode=compile_mode_of(cfg, device),
        stream=stream,
    )
    held_out: list[ValidationBatch] = []

    def validate() -> dict[str, dict[float, float]]:
        if not held_out:
            held_out.append(_held_out(cfg, built, val, module.device))
        losses = {}
        module.backbone.eval()
        with trainer.precision_plugin.forward_context():
            losses["raw"] = validation_loss(module.backbone, built.formulation, held_out[0], t.batch_size)
            with ema.applied(module.backbone):
                losses["ema"] = validation_loss(module.backbone, built.formulation, held_out[0], t.batch_size)
        module.backbone.train()
        return losses

    notice = Notice()
    cadence = Cadence(
        run,
        validate,
        notice,
        waited=lambda: batches[0].wait if batches else 0.0,
        batch_size=t.batch_size,
        log_every=t.log_every,
        val_every=t.val_every,
        checkpoint_every=t.checkpoint_every,
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_float32_matmul_precision("high")
    # cuDNN's attention backward gives NaN on some shapes of this generation of GPUs.
    torch.backends.cuda.enable_cudnn_sdp(False)
    trainer = Trainer(
        accelerator=t.accelerator,
        devices=t.devices,
        strategy=t.strategy,
        num_nodes=t.num_nodes,
        precision=precision_of(cfg, device),  # type: ignore[arg-type]
        max_steps=t.steps,
        max_epochs=-1,
        logger=[instantiate(cfg.logger)] if cfg.logger else False,
        callbacks=[cadence],
        default_root_dir=run.path,  # where Lightning looks for a scheduler's checkpoints: never another run's
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    resume = cadence.last if cadence.last.is_file() else None
    with notice.listening():
        trainer.fit(module, ckpt_path=resume, weights_only=True)
    return Outcome(trainer.global_step, cadence.diverged_at, cadence.interrupted)


def _held_out(cfg: DictConfig, built: Built, val: Source, device: torch.device) -> ValidationBatch:
    indices = shuffled(val, min(cfg.trainer.val_samples, len(val)))
    images = torch.from_numpy(val.images(indices)).to(device)
    text = built.text.encode([val.prompt(i) for i in indices])
    return ValidationBatch.of(built.autoencoder.encode(images), text.to(device))
