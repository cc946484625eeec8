"""From a resolved config to the objects of a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from hydra.utils import instantiate
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import nn

from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pixels import Pixels
from flowzoo.backbones.stacked import StackedBackbone
from flowzoo.data.opening import opened
from flowzoo.data.source import MEASURED, Source, measure, shuffled
from flowzoo.encoders.text import TextEncoders
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.stacked import StackedFormulation
from flowzoo.randomness import word
from flowzoo.runs.files import Refused, RunError, write_atomically
from flowzoo.runs.keys import BESIDE
from flowzoo.runs.layout import DATA
from flowzoo.runs.store import Unfit, data_of

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Built:
    """The parts of V runs that differ in path, sampler, seed and optimiser alone, V >= 1."""

    formulation: StackedFormulation
    network: StackedBackbone
    autoencoder: Latents
    text: TextEncoders
    image_size: int  # pixels

    def of(self, places: Sequence[int]) -> "Built":
        """The parts of some of the runs; all of them are this itself."""
        if list(places) == list(range(len(self.network))):
            return self
        formulations = [self.formulation.formulations[i] for i in places]
        network = self.network.holding(self.network.flat.detach()[list(places)])
        return replace(self, formulation=StackedFormulation(formulations), network=network)


def device_of(cfg: DictConfig) -> torch.device:
    """The device for work outside Lightning; `trainer.accelerator=cpu` keeps everything off a GPU."""
    asked = cfg.trainer.accelerator in ("gpu", "cuda")
    if asked and not torch.cuda.is_available():
        raise Unfit(f"trainer.accelerator={cfg.trainer.accelerator}: there is no GPU here; allowed are auto and cpu")
    gpu = torch.cuda.is_available() and (asked or is_auto(cfg.trainer.accelerator))
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")


def is_auto(value: Any) -> bool:
    return value == "auto"


def processes_of(cfg: DictConfig) -> int:
    """Devices of a node times nodes. `trainer.devices=auto` is every GPU that can be seen, or the CPU."""
    devices = cfg.trainer.devices
    if is_auto(devices):
        devices = torch.cuda.device_count() if device_of(cfg).type == "cuda" else 1
    return (devices if isinstance(devices, int) else len(devices)) * cfg.trainer.num_nodes


def is_first_process(cfg: DictConfig) -> bool:
    """Whether this process writes. One that trains a run alone does, whatever its number among SLURM's tasks is."""
    return processes_of(cfg) == 1 or getattr(rank_zero_only, "rank", 0) == 0


def is_half(cfg: DictConfig, device: torch.device) -> bool:
    """Whether forward and backward passes are in bf16."""
    return device.type == "cuda" if is_auto(cfg.trainer.precision) else cfg.trainer.precision == "bf16-mixed"


def compile_mode_of(cfg: DictConfig, device: torch.device) -> str | None:
    """CUDA graphs where there is a GPU, nothing elsewhere, unless the user said otherwise."""
    gpu = device.type == "cuda"
    wanted = gpu if is_auto(cfg.trainer.compile) else cfg.trainer.compile
    return ("reduce-overhead" if gpu else "default") if wanted else None


def source_of(cfg: DictConfig, split: str) -> Source:
    return instantiate(cfg.data.source, split=split)


def sources_of(cfg: DictConfig) -> tuple[Source, Source]:
    """The train and the val split of a run that has not begun. Raises Refused, as `opened`."""
    train, val = opened(cfg.data)
    for key in ("mean", "std"):
        if cfg.data[key] is not None and len(cfg.data[key]) != train.channels:
            raise Refused(
                f"data.{key}={list(cfg.data[key])}: allowed is null, or a number for each of {train.channels} channels"
            )
    patch = cfg.backbone.get("patch_size")
    if patch and train.image_size % patch:
        raise Refused(f"backbone.patch_size={patch}: allowed is a divisor of {train.image_size}, the image size")
    return train, val


def autoencoder_of(cfg: DictConfig, statistics: Mapping[str, Any]) -> Latents:
    own = {key: value for key, value in cfg.autoencoder.items() if key not in BESIDE["autoencoder"]}
    autoencoder = instantiate(own, image_channels=len(statistics["mean"]))
    if not isinstance(autoencoder, Pixels):
        raise RunError(f"autoencoder={own['_target_']}: allowed is pixels")
    mean, std = ([255 * x for x in statistics[key]] for key in ("mean", "std"))
    return Latents(autoencoder, mean, std, gain=cfg.autoencoder.gain)


def statistics_of(cfg: DictConfig, folder: Path, train: Source | None = None) -> dict[str, Any]:
    """Size, mean and deviation of the images, from the config or measured once and kept in the run folder with the
    fingerprint of the images that they are of.

    `deviation` is that of the normalised images, EDM's sigma_data where `sigma_data=data` asks for the measured one.
    Raises RunError where the folder is that of a run that was trained on other images than `train`.
    """
    if refusal := other_data(cfg, folder, train):
        raise RunError(refusal)
    kept = folder / DATA
    if kept.is_file():
        return json.loads(kept.read_text())
    if train is None:
        raise RunError(f"{kept} is missing: was this run trained?")
    if cfg.data.mean is None or cfg.data.std is None:
        mean, std = measure(train)
    else:
        mean, std = list(cfg.data.mean), list(cfg.data.std)
    images = torch.from_numpy(train.images(shuffled(train, min(len(train), MEASURED))))
    latents = autoencoder_of(cfg, {"mean": mean, "std": std}).encode(images)
    statistics = {"mean": mean, "std": std, "deviation": float(latents.double().std())}
    statistics |= {"image_size": train.image_size, "fingerprint": train.fingerprint}
    _keep(cfg, statistics, folder)
    return statistics


def _keep(cfg: DictConfig, statistics: Mapping[str, Any], folder: Path) -> None:
    if is_first_process(cfg) and not (folder / DATA).is_file():
        write_atomically(folder / DATA, lambda part: part.write_text(json.dumps(statistics)))


def other_data(cfg: DictConfig, folder: Path, train: Source | None) -> str:
    """Why a run cannot go on with the images of `train`: it was trained on others. Empty where it can."""
    before = data_of(folder)
    if train is None or before is None or before == train.fingerprint:
        return ""
    place = cfg.data.source.get("path")
    return (
        f"{folder}: data.name={cfg.data.name}" + (f" data.source.path={place}" if place else "") + " holds other "
        f"training data (fingerprint {train.fingerprint[:8]}) than this run was trained on ({before[:8]}); allowed: "
        "the same images and captions, or another sweep= for a run on these"
    )


def formulation_of(cfg: DictConfig, statistics: Mapping[str, Any]) -> Formulation:
    target = OmegaConf.to_container(cfg.path.target, resolve=True)
    assert isinstance(target, dict)
    if target.get("sigma_data") == "data":
        target["sigma_data"] = statistics["deviation"]
    loss, weighting = (instantiate(part) if part else None for part in (cfg.path.get("loss"), cfg.get("weighting")))
    return Formulation(instantiate(cfg.path.schedule), instantiate(target), instantiate(cfg.sampler), loss, weighting)


def backbone_of(cfg: DictConfig, autoencoder: Latents, text: TextEncoders, image_size: int) -> nn.Module:
    """The initial weights are a function of the seed alone, so all variants of a backbone start alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(word(cfg.seed, 0, "weights"))
        size, _ = autoencoder.latent_size((image_size, image_size))
        backbone = {key: value for key, value in cfg.backbone.items() if key not in BESIDE["backbone"]}
        return instantiate(backbone, channels=autoencoder.channels, image_size=size, text=text.spec)


def build(cfgs: Sequence[DictConfig], folders: Sequence[Path], train: Source | None = None) -> Built:
    """What runs share is built once. `train` is needed where statistics of the data are still to be measured."""
    cfg, statistics = cfgs[0], statistics_of(cfgs[0], folders[0], train)
    for one, folder in zip(cfgs, folders, strict=True):
        if (data_of(folder) or statistics["fingerprint"]) != statistics["fingerprint"]:
            raise RunError(other_data(one, folder, train) or f"{folder} was trained on other data than {folders[0]}")
        _keep(one, statistics, folder)
    autoencoder = autoencoder_of(cfg, statistics)
    text: TextEncoders = instantiate(cfg.text)
    by_seed: dict[int, nn.Module] = {}
    for one in cfgs:
        if one.seed not in by_seed:
            by_seed[one.seed] = backbone_of(one, autoencoder, text, statistics["image_size"])
    formulation = StackedFormulation([formulation_of(one, statistics) for one in cfgs])
    network = StackedBackbone([by_seed[one.seed] for one in cfgs])
    return Built(formulation, _exact(cfg, network), _exact(cfg, autoencoder), text, statistics["image_size"])


def _exact(cfg: DictConfig, network: Network) -> Network:
    """In float64 where training is: Lightning would convert it only after it has read a checkpoint into float32."""
    return network.double() if str(cfg.trainer.precision).startswith("64") else network
