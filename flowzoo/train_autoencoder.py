"""Train a KL autoencoder, whose latents backbones then see: `python -m flowzoo.train_autoencoder data=shapes`.

The same command goes on where an earlier one stopped. Beside the output stand a grid of reconstructions and the
training's folder, named by the output and by a hash of the config and the images.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from flowzoo.autoencoders.kl import KLAutoencoder, save_kl
from flowzoo.autoencoders.kl_loss import KLLoss, PatchCritic
from flowzoo.autoencoders.kl_network import FACTORS, KLNetwork
from flowzoo.backbones.stacked import Single
from flowzoo.build import loop_of, optimizer_of, plain, rate_of
from flowzoo.data.loader import Batches
from flowzoo.data.overview import tell
from flowzoo.data.source import Source
from flowzoo.metrics.reconstruction import picture, reconstruct
from flowzoo.picture import save_grid
from flowzoo.runs.check import check_single
from flowzoo.runs.files import explained
from flowzoo.runs.identity import run_hash
from flowzoo.runs.keys import BESIDE
from flowzoo.runs.limits import NOT_NEGATIVE, integer, list_of, one_of
from flowzoo.runs.output import follow
from flowzoo.runs.single import checked_output, launch_single, refuse_another, training_folder
from flowzoo.runs.store import Run
from flowzoo.sizes import shown
from flowzoo.sources import opened
from flowzoo.tasks.autoencoder import Adversary, AutoencoderTask, Autoencoding
from flowzoo.training.loop import Loop
from flowzoo.training.program import Program
from flowzoo.training.single import train_single
from flowzoo.training.surroundings import check_here

SHOWN = 8  # images of the grid, each above its reconstruction
OWN_LIMITS = {
    "network.factor": one_of(*FACTORS),
    "network.channels": integer(1),
    "network.widths": list_of(integer(8)),
    "network.blocks": integer(1),
    "loss.norm": one_of("l1", "l2"),
    "loss.kl": NOT_NEGATIVE,
    "loss.perceptual_weight": NOT_NEGATIVE,
    "critic.weight": NOT_NEGATIVE,
    "critic.start": integer(0),
    "quality.images": integer(2),
    "trainer.devices": one_of(1),
    "trainer.num_nodes": one_of(1),
}


@dataclass(frozen=True)
class Prepared:
    """What a config asks for, checked."""

    source: Source
    held_out: Source
    network: KLNetwork
    loss: KLLoss
    critic: PatchCritic | None
    adversary: Adversary | None
    loop: Loop
    output: Path
    folder: Path


def prepare(cfg: DictConfig) -> Prepared:
    """Everything that can be refused before images are read. Raises ValueError or RunError."""
    values = check_single(cfg, "train_autoencoder", OWN_LIMITS)
    if "stack" in values:
        raise ValueError("trainer=stacked: one autoencoder is trained at a time; allowed is trainer=solo")
    output = checked_output(values["output"], "kl.safetensors")
    loop = loop_of(cfg)
    check_here(loop)
    source, held_out = opened(cfg)
    if any(edge % values["network"]["factor"] for edge in source.size):
        raise ValueError(
            f"network.factor={values['network']['factor']}: allowed is a divisor of {shown(source.size)}, the images' "
            "size"
        )
    torch.manual_seed(cfg.seed)
    try:
        network = KLNetwork(source.channels, **values["network"])
    except ValueError as error:
        raise ValueError(f"network.{error}") from error
    beside = values.get("critic") or {}
    try:
        perceptual = instantiate(cfg.perceptual) if cfg.get("perceptual") else None
        loss = instantiate(cfg.loss, perceptual=perceptual)
        own = {key: value for key, value in beside.items() if key not in BESIDE["critic"]}
        critic = instantiate(own, image_channels=source.channels) if own else None
    except InstantiationException as error:
        raise explained(error) from error
    if beside and beside["start"] >= loop.steps:
        raise ValueError(f"critic.start={beside['start']}: allowed is less than trainer.steps={loop.steps}")
    adversary = Adversary(*(beside[key] for key in BESIDE["critic"])) if critic else None
    told = {key: value for key, value in cfg.items() if key not in ("output", "quality")}
    folder = training_folder(output, run_hash(told), source.fingerprint, held_out.fingerprint)
    refuse_another(output, folder)
    return Prepared(source, held_out, network, loss, critic, adversary, loop, output, folder)


def run(cfg: DictConfig) -> dict[str, Any]:
    """Read the data, train, measure the quality of what was written, and return it. Raises as `prepare`."""
    made = prepare(cfg)
    parameters = sum(p.numel() for p in made.network.parameters())
    c, (h, w) = made.network.channels, _latent_size(made)
    about = ("autoencoder", f"{parameters / 1e6:.2f} M parameters, latents {c} x {h} x {w}")
    tell(made.source, made.held_out, Console(), [about])

    def finish(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return write(cfg, made, state)

    return train_single(Run(made.folder), plain(cfg), made.loop, lambda: program(cfg, made), finish)


def _latent_size(made: Prepared) -> tuple[int, int]:
    height, width = made.source.size
    return height // made.network.factor, width // made.network.factor


def program(cfg: DictConfig, made: Prepared) -> Program:
    """What trains the autoencoder."""
    loop = made.loop

    def stream(device: torch.device) -> Batches:
        return Batches(
            made.source,
            None,
            batch_size=loop.batch_size,
            seed=cfg.seed,
            device=device,
            cache=loop.cache,
            workers=loop.workers,
        )

    module = Autoencoding(made.network, made.critic)
    task = AutoencoderTask(
        made.loss,
        made.held_out,
        (made.network.channels, *_latent_size(made)),
        adversary=made.adversary,
        seed=cfg.seed,
        val_samples=loop.val_samples,
        batch_size=max(1, loop.batch_size // loop.accumulate),
        stream=stream,
        dtype=torch.float64 if loop.is_double else torch.float32,
    )
    network = Single(module.double() if loop.is_double else module)
    return Program(
        network,
        task,
        instantiate(cfg.ema),
        [optimizer_of(cfg.optimizer)],
        rate_of(cfg.optimizer),
        steps=loop.steps,
        clip_norm=loop.clip_norm,
        mixed=loop.is_half,
        compile_mode=loop.compile_mode,
        accumulate=loop.accumulate,
        decayed=network.matrices(),
    )


def write(cfg: DictConfig, made: Prepared, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Writes the autoencoder with these weights of `Autoencoding`, measures the file and returns its quality."""
    network = made.network.float()
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    about: dict[str, Any] = {"name": f"kl_{cfg.data.name}", "quality": {}, "data": made.source.name}
    about["command"] = " ".join(["python -m flowzoo.train_autoencoder", *sys.argv[1:]])
    # Measured on a file, that is after rounding to half precision, and then written into it.
    draft = made.folder / "kl.safetensors"
    save_kl(network, draft, about)
    autoencoder = KLAutoencoder(made.source.channels, draft).to(made.loop.device)
    found = reconstruct(autoencoder, made.held_out, cfg.quality.images, made.loop.device, keep=SHOWN)
    quality = {"images": found.images, "data": made.held_out.name, "psnr": found.psnr, "ssim": found.ssim}
    save_kl(network, made.output, about | {"quality": quality})
    save_grid(made.output.with_suffix(".png"), picture(found), columns=SHOWN)
    draft.unlink()
    print(
        f"{made.output}: {made.output.stat().st_size / 1e6:.2f} MB, on {found.images:,} held-out images of "
        f"{made.held_out.name} PSNR {found.psnr:.2f} dB, SSIM {found.ssim:.3f}"
    )
    return quality


def main() -> NoReturn:
    launch_single("train_autoencoder", run, "optimizer.lr")


if __name__ == "__main__":
    follow()
    main()
