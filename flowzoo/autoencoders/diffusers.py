"""Any AutoencoderKL in the format of the diffusers library, such as that of SD3."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowzoo.autoencoders.kl_network import to_float, to_uint8
from flowzoo.content import sha256_of
from flowzoo.network_file import is_hub_name
from flowzoo.paths import user_path

CONFIG = "config.json"


class DiffusersAutoencoder(nn.Module):
    """Latents are the means of the posteriors, less shift_factor, times scaling_factor, as in diffusers' pipelines.

    Args:
        image_channels: C of the images.
        weights: a folder with config.json and safetensors, for instance the `vae` of a pipeline; or the name of one on
            Hugging Face's hub, OWNER/NAME, where there is a network. Nothing but tensors and numbers is read of it.

    Raises ValueError where diffusers is not installed, there is no such folder, its class is another, tensors are
    missing or do not fit, or the weights are for other images.
    """

    def __init__(self, image_channels: int, weights: str | Path) -> None:
        super().__init__()
        folder = _folder(str(weights))
        self.vae = _loaded(folder, weights)
        config: Any = self.vae.config
        if config.in_channels != image_channels or config.out_channels != image_channels:
            raise ValueError(
                f"weights={weights}: they are of images with {config.in_channels} channels; allowed are those of "
                f"images with {image_channels}"
            )
        self.image_channels, self.channels = image_channels, int(config.latent_channels)
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        self.shift, self.scale = float(config.shift_factor or 0.0), float(config.scaling_factor)
        files = [folder / CONFIG, *sorted(folder.glob("*.safetensors"))]
        told = [(file.name, sha256_of(file)) for file in files]
        self.fingerprint = sha256(repr(("diffusers", told)).encode()).hexdigest()[:16]

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 [n, C, H, W] -> [n, c, H/f, W/f]."""
        mean = self.vae.encode(to_float(images, self.vae.dtype)).latent_dist.mode()
        return (mean - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """[n, c, h, w] -> uint8 [n, C, h f, w f]."""
        return to_uint8(self.vae.decode(latents.to(self.vae.dtype) / self.scale + self.shift).sample)


def _folder(weights: str) -> Path:
    """The folder itself, or what the hub has under its name."""
    path = user_path(weights)
    if path.is_dir():
        return path
    allowed = f"a folder with {CONFIG} and safetensors"
    if not is_hub_name(weights):
        raise ValueError(f"weights={weights}: there is no such folder; allowed is {allowed}")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(weights, allow_patterns=[CONFIG, "*.safetensors"]))
    except Exception as error:  # of the network, of the hub, of the name: each library has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"weights={weights}: there is no such folder, and the hub does not give it ({reason}); allowed is {allowed}"
        ) from error


def _loaded(folder: Path, weights: str | Path) -> Any:
    """diffusers' AutoencoderKL, float32, frozen, strictly loaded."""
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise ValueError("autoencoder=diffusers needs the package diffusers: pip install 'flowzoo[sd3]'") from error
    try:
        config = json.loads((folder / CONFIG).read_text())
        named = config.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"weights={weights}: {CONFIG} cannot be read: {error}") from error
    if named != "AutoencoderKL":
        raise ValueError(f"weights={weights}: its class is {named}; allowed is AutoencoderKL")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"weights={weights}: there are no safetensors in it; no other files of weights are ever read")
    try:
        with _quiet():
            vae, info = AutoencoderKL.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # damaged or misshapen: diffusers, torch and safetensors have many of them
        raise ValueError(f"weights={weights}: {' '.join(str(error).split())}") from error
    for key, what in (("missing_keys", "is missing"), ("unexpected_keys", "is not of this network")):
        if info[key]:
            raise ValueError(f"weights={weights}: {sorted(info[key])[0]} {what}")
    return vae.requires_grad_(False).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' words about what is refused here in one line."""
    logger = logging.getLogger("diffusers")
    before, logger.disabled = logger.level, True
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.disabled = False
