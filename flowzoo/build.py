"""The door: from a checked config to typed parts. Nothing that is imported below takes a config.

jobs_left(cfgs)    jobs, to be trained and scored together (flowzoo/training/lifecycle.py), less those that are over
trained_job(cfg)   the job of a run that was trained, to be scored
load(folder)       a trained run's model, with its weights
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from flowzoo.autoencoders.autoencoder import Autoencoder
from flowzoo.autoencoders.kept import find
from flowzoo.autoencoders.kept import load as load_kept
from flowzoo.autoencoders.latents import Latents
from flowzoo.autoencoders.pixels import Pixels
from flowzoo.autoencoders.spectrum import eigenvalues, latents_at, latents_of_some
from flowzoo.autoencoders.statistics import ChannelStatistics
from flowzoo.data.source import MEASURED, Encoded, Source, shuffled
from flowzoo.encoders.text import TextEncoders
from flowzoo.formulation.formulation import Formulation
from flowzoo.formulation.mixture import LogisticMixture
from flowzoo.job import Evaluation, Job, Model, Setting
from flowzoo.paths import user_path
from flowzoo.randomness import word
from flowzoo.runs.classes import check_callbacks
from flowzoo.runs.files import Refused, RunError, explained
from flowzoo.runs.hydras import locate
from flowzoo.runs.identity import backbone_label, part_identity, run_folder, run_variant
from flowzoo.runs.keys import BESIDE
from flowzoo.runs.layout import AUTOENCODER, DATA
from flowzoo.runs.rows import settings_of
from flowzoo.runs.store import Run, latents_known, resolved
from flowzoo.sizes import pair, patch_of, shown
from flowzoo.sources import check_cut, other_data, source_of, sources_of
from flowzoo.training.checkpoint import load_into
from flowzoo.training.loop import Loop
from flowzoo.training.optimizer import AnyOptimizer, TorchOptimizer
from flowzoo.training.rate import Linear, Rate
from flowzoo.training.surroundings import check_here

MEASURED_HERE = "data"  # in a config, instead of a number: what is measured on what the backbone sees


def jobs_left(cfgs: Sequence[DictConfig]) -> list[Job]:
    """The jobs of those runs that are not over; where that is one alone, it is told. Raises Unfit, and as `jobs_of`."""
    check_here(loop_of(cfgs[0]))
    left = [cfg for cfg in cfgs if not Run(run_folder(cfg)).is_over(cfg.get("halving") is not None)]
    if len(cfgs) == 1 and not left:
        Console().print(Run(run_folder(cfgs[0])).told_over, highlight=False, soft_wrap=True, markup=False)
    return jobs_of(left) if left else []


def jobs_of(cfgs: Sequence[DictConfig], folders: Sequence[Path] | None = None) -> list[Job]:
    """The jobs of configs that differ in what runs/grouping.py lists; what they share is built once.

    Nothing is written. `folders` are those of the runs, by default where their configs say.

    Raises:
        Refused: the data cannot be opened, or do not fit the config.
        RunError: a run was trained on other images, or the jobs on different ones.
    """
    cfg, folders = cfgs[0], folders or [run_folder(one) for one in cfgs]
    check_callbacks(cfg)
    train, val = sources_of(cfg)
    for one, folder in zip(cfgs, folders, strict=True):
        if refusal := other_data(one, folder, train):
            raise RunError(refusal)
    autoencoder = autoencoder_of(cfg, train.channels)
    check_cut(cfg, train.size, autoencoder.factor)
    begun = [folder for folder in folders if (folder / DATA).is_file()]
    statistics = _kept(begun[0], autoencoder) if begun else measured(cfg, autoencoder, train, val, loop_of(cfg).device)
    latents, text, evaluation = latents_of(cfg, autoencoder, statistics), instantiate(cfg.text), evaluation_of(cfg)
    for folder in begun:
        _check_latents(folder, latents)
    about = {"size": train.size, "channels": train.channels, "latents": latents.fingerprint}
    about |= {"factor": autoencoder.factor, "latent_channels": latents.channels, "statistics": latents.statistics}
    found = _found_out(cfgs, begun, latents, train)
    backbones: dict[int, nn.Module] = {}
    jobs = []
    for one, folder in zip(cfgs, folders, strict=True):
        told = {**about, **{key: found[key] for key in _asked(one)}}
        model = _model(one, latents, text, told, backbones.get(one.seed))
        backbones[one.seed] = model.backbone
        jobs.append(_job(one, folder, model, train, val, evaluation, statistics=statistics, about_data=told))
    return jobs


def trained_job(cfg: DictConfig, folder: Path) -> Job:
    """The job of a run in `folder` that is there to be scored, as `cfg` says. Its training data need not be there."""
    stored, val = Run(folder).config, source_of(cfg, "val")
    as_trained = all(cfg[key] == stored[key] for key in ("solver", "evaluation", "extractor", "metric"))
    return _job(cfg, folder, _read_model(cfg, folder), None, val, evaluation_of(cfg), as_trained=as_trained)


def model_of(cfg: DictConfig, folder: Path, checkpoint: str = "best", weights: str = "ema") -> Model:
    """The model of a trained run with the weights of a checkpoint. Raises FileNotFoundError and ValueError."""
    model = _read_model(cfg, folder)
    load_into(model.backbone, folder / "checkpoints" / f"{checkpoint}.ckpt", weights)
    return model


def load(folder: str | Path, checkpoint: str = "best", weights: str = "ema") -> Model:
    """A trained run's model by the run's folder: `load("runs/demo/rf-s0-1234abcd")`. Raises RunError."""
    run = Run.open(folder)
    return model_of(run.config, run.path, checkpoint, weights)


def _read_model(cfg: DictConfig, folder: Path) -> Model:
    """With the weights from which training started, and what the run's folder says of its images."""
    if not (folder / DATA).is_file():
        raise RunError(f"{folder / DATA} is missing: was this run trained?")
    data = json.loads((folder / DATA).read_text())
    autoencoder = autoencoder_of(cfg, data["channels"])
    latents = latents_of(cfg, autoencoder, _kept(folder, autoencoder))
    _check_latents(folder, latents)
    return _model(cfg, latents, instantiate(cfg.text), data)


# the parts


def _job(
    cfg: DictConfig,
    folder: Path,
    model: Model,
    train: Source | None,
    val: Source,
    evaluation: Evaluation,
    **others: Any,
) -> Job:
    """`others` are fields of Job that the config does not say."""
    return Job(
        run=Run(folder),
        model=model,
        train=train,
        val=val,
        loop=loop_of(cfg),
        optimizer=optimizer_of(cfg.optimizer),
        rate=rate_of(cfg.optimizer),
        ema=instantiate(cfg.ema),
        evaluation=evaluation,
        halving=instantiate(cfg.halving) if cfg.get("halving") else None,
        logger=partial(instantiate, cfg.logger) if cfg.get("logger") else None,
        callbacks=partial(callbacks_of, cfg) if cfg.get("callbacks") else None,
        seed=cfg.seed,
        dataset=cfg.data.name,
        backbone_label=backbone_label(cfg),
        config=resolved(cfg),
        cache=user_path(cfg.runs) / ".cache",
        **others,
    )


def loop_of(cfg: DictConfig) -> Loop:
    """The config group `trainer`, and how the group `data` brings batches to the device."""
    return Loop(**plain(cfg.trainer), cache=cfg.data.cache, workers=cfg.data.workers)


def optimizer_of(part: DictConfig) -> AnyOptimizer:
    """The config group `optimizer`, less its learning-rate schedule."""
    own = {key: value for key, value in plain(part).items() if key not in BESIDE["optimizer"]}
    kind = locate(own["_target_"])
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        return instantiate(own, _convert_="object")
    return TorchOptimizer(kind, **{key: value for key, value in own.items() if not key.startswith("_")})


def rate_of(part: DictConfig) -> Rate:
    """The learning-rate schedule of the config group `optimizer`: a class, or warm-up and linear decay."""
    return instantiate(part.rate) if part.get("rate") else Linear(part.warmup_steps, part.decay_to)


def callbacks_of(cfg: DictConfig) -> list[Callback]:
    """The config group `callbacks`, made anew."""
    return [instantiate(part) for part in cfg.callbacks.values()]


def evaluation_of(cfg: DictConfig) -> Evaluation:
    """The config groups `evaluation`, `solver`, `extractor` and `metric`."""
    told = plain(cfg.evaluation)
    told["settings"] = [Setting(*setting) for setting in settings_of(told)]
    told.pop("grids", None)
    return Evaluation(
        **told,
        solver=instantiate(cfg.solver),
        extractor=instantiate(cfg.extractor),
        metrics=[instantiate(metric) for metric in cfg.metric.values()],
        made_by={key: part_identity(cfg[key]) for key in ("extractor", "autoencoder")},
    )


def plain(node: Any) -> Any:
    """A part of a config as plain values."""
    return OmegaConf.to_container(node, resolve=True)


def _model(
    cfg: DictConfig,
    latents: Latents,
    text: TextEncoders,
    about: Mapping[str, Any],
    backbone: nn.Module | None = None,
) -> Model:
    """`about` the data, as data.json; `backbone` where one of the same seed is built already."""
    size = pair(about["size"])
    backbone = backbone or backbone_of(cfg, latents, text, size)
    return Model(formulation_of(cfg, about), backbone, latents, text, size)


def try_parts(kinds: Sequence[tuple[DictConfig, Source]]) -> None:
    """Makes the autoencoder and the metrics of configs, for the images that they train on.

    What a constructor refuses is refused before anything is written, and so is what data were encoded by others.
    Raises Refused.
    """
    for cfg, train in kinds:
        makers: dict[str, Any] = {"autoencoder": partial(autoencoder_of, cfg, train.channels)}
        if isinstance(train, Encoded):
            makers = {"autoencoder": partial(_encoded_by, cfg, train)}
        makers |= {f"metric.{name}": partial(instantiate, part) for name, part in cfg.metric.items()}
        for place, make in makers.items():
            try:
                make()
            except InstantiationException as error:
                if not isinstance(error.__cause__, ValueError | OSError | TypeError):
                    raise
                raise Refused(f"{place}.{error.__cause__}") from error.__cause__


def _encoded_by(cfg: DictConfig, train: Source) -> None:
    """Raises Refused where other encoders than the config's made the data."""
    assert isinstance(train, Encoded)
    measured(cfg, autoencoder_of(cfg, train.channels), train, train, torch.device("cpu"))
    train.names_of(instantiate(cfg.text))


def formulation_of(cfg: DictConfig, about: Mapping[str, Any]) -> Formulation:
    """`about` what the backbone sees says what `_asked` names: EDM's sigma_data, and the spectrum of a timestep law."""
    target, sampler = plain(cfg.path.target), plain(cfg.sampler)
    if target.get("sigma_data") == MEASURED_HERE:
        target["sigma_data"] = about["deviation"]
    if sampler.get("eigenvalues") == MEASURED_HERE:
        del sampler["eigenvalues"]
        law = instantiate({**sampler, "_partial_": True})(LogisticMixture.read(about["spectrum"]))
    else:
        law = instantiate(sampler)
    loss, weighting = (instantiate(part) if part else None for part in (cfg.path.get("loss"), cfg.get("weighting")))
    return Formulation(instantiate(cfg.path.schedule), instantiate(target), law, loss, weighting, name=run_variant(cfg))


def autoencoder_of(cfg: DictConfig, image_channels: int) -> Autoencoder:
    """In its own units; one that is fitted knows nothing of images yet."""
    own = {key: value for key, value in cfg.autoencoder.items() if key not in BESIDE["autoencoder"]}
    return instantiate(own, image_channels=image_channels)


def autoencoder_for(cfg: DictConfig, source: Source) -> Autoencoder:
    """As `autoencoder_of`, for the images of a source.

    Raises RunError for what its class refuses, and ValueError where its factor does not cut the images.
    """
    try:
        autoencoder = autoencoder_of(cfg, source.channels)
    except InstantiationException as error:
        raise explained(error) from error
    if any(edge % autoencoder.factor for edge in source.size):
        raise ValueError(
            f"autoencoder.factor={autoencoder.factor}: allowed is a divisor of {shown(source.size)}, the images' size"
        )
    return autoencoder


def latents_of(cfg: DictConfig, autoencoder: Autoencoder, statistics: ChannelStatistics) -> Latents:
    """The autoencoder, normalised by `statistics`; gain and spectrum_power are the config's."""
    told = {key: cfg.autoencoder[key] for key in BESIDE["autoencoder"] if key in cfg.autoencoder}
    return Latents(autoencoder, statistics.mean, statistics.std, **told)


def _kept(folder: Path, autoencoder: Autoencoder) -> ChannelStatistics:
    """The statistics that a run has kept; a fitted autoencoder gets its state back. Raises RunError."""
    path = folder / AUTOENCODER
    if not path.is_file():
        raise RunError(
            f"{path} is missing: the run has begun with the latents that it tells; allowed: that file, or another "
            "sweep= for a run from the start"
        )
    return load_kept(path, autoencoder)


def _check_latents(folder: Path, latents: Latents) -> None:
    """Raises RunError where a run has begun with other latents."""
    if (before := latents_known(folder)) != latents.fingerprint:
        raise RunError(
            f"{folder / AUTOENCODER} tells other latents (fingerprint {latents.fingerprint}) than the run has begun "
            f"with ({before}); allowed: the file as it was, or another sweep= for a run from the start"
        )


def measured(
    cfg: DictConfig, autoencoder: Autoencoder, train: Source, val: Source, device: torch.device
) -> ChannelStatistics:
    """By which latents are normalised: of pixels as the config says, else measured; of data that were encoded before as
    they were. Raises Refused, as `find`, and where data were encoded by another autoencoder.
    """
    if isinstance(train, Encoded):
        if cfg.data.mean is not None or cfg.data.std is not None:
            raise Refused(f"data.mean={cfg.data.mean}: data {train.name} were encoded with their own; allowed is null")
        try:
            return load_kept(train.autoencoder, autoencoder)
        except RunError as error:
            raise Refused(
                f"data {train.name} were encoded by another autoencoder than autoencoder= says: {error}"
            ) from error
    if isinstance(autoencoder, Pixels) and cfg.data.mean is not None and cfg.data.std is not None:
        mean, std = ([255 * x for x in cfg.data[key]] for key in ("mean", "std"))
        return ChannelStatistics.given(mean, std)
    found = find(autoencoder, train, val, device)
    autoencoder.to("cpu")
    return found


def backbone_of(cfg: DictConfig, latents: Latents, text: TextEncoders, size: tuple[int, int]) -> nn.Module:
    """For images of (H, W).

    The initial weights are a function of the seed alone, so all variants of a backbone start alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(word(cfg.seed, 0, "weights"))
        given = {"channels": latents.channels, "size": latents.latent_size(size), "text": text.spec}
        return instantiate(backbone_words(cfg, latents), **given)


def backbone_words(cfg: DictConfig, latents: Latents) -> DictConfig:
    """The class of a backbone and its own parameters, as it is made: to `channels`, `size` and `text` of the data."""
    backbone = {key: value for key, value in cfg.backbone.items() if key not in BESIDE["backbone"]}
    if "patch_size" in backbone:
        backbone["patch_size"] = patch_of(backbone["patch_size"], latents.autoencoder.factor)
    return OmegaConf.create(backbone)


def _asked(cfg: DictConfig) -> list[str]:
    """What a formulation must be told of the latents, by its key in data.json."""
    asked = {"deviation": cfg.path.target.get("sigma_data"), "spectrum": cfg.sampler.get("eigenvalues")}
    return [key for key, value in asked.items() if value == MEASURED_HERE]


def _found_out(cfgs: Sequence[DictConfig], begun: Sequence[Path], latents: Latents, train: Source) -> dict[str, Any]:
    """What `_asked` names, of the latents of at most 10,000 images; as runs that have begun keep it."""
    known: dict[str, Any] = {}
    for folder in begun:
        known = {**json.loads((folder / DATA).read_text()), **known}
    device = loop_of(cfgs[0]).device
    found = {}
    for key in {key for cfg in cfgs for key in _asked(cfg)}:
        if key in known:
            found[key] = known[key]
        elif key == "deviation":
            indices = shuffled(train, min(len(train), MEASURED))
            found[key] = float(latents_at(latents.to(device), train, indices, device).double().std())
            latents.to("cpu")
        else:
            found[key] = LogisticMixture.of(eigenvalues(latents_of_some(latents, train, device=device))).told
    return found
