"""The data that a config names: opened, and whether they fit what else it says. Part of the door (flowzoo/build.py)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from flowzoo.data.opening import check_source, check_splits
from flowzoo.data.source import Source
from flowzoo.runs.check import check_patches
from flowzoo.runs.files import Refused
from flowzoo.runs.identity import run_folder
from flowzoo.runs.store import Run, data_of


def source_of(cfg: DictConfig, split: str, **settings: Any) -> Source:
    """One split of the config group `data`; `settings` are added to those of its source. Raises Refused."""
    told = f"data {cfg.data.name}"
    try:
        source = instantiate(cfg.data.source, split=split, **settings)
    except InstantiationException as error:
        if not isinstance(error.__cause__, ValueError | OSError | TypeError):
            raise
        raise Refused(f"{told}: {error.__cause__}") from error.__cause__
    check_source(source, split, told)
    return source


def opened(cfg: DictConfig, **settings: Any) -> tuple[Source, Source]:
    """The train and the val split, which fit together. Raises Refused, as `source_of`."""
    train, val = (source_of(cfg, split, **settings) for split in ("train", "val"))
    check_splits(train, val, f"data {cfg.data.name}")
    return train, val


_ahead: dict[str, tuple[Source, Source]] = {}  # by the config of the data: what is open and waits for a job


def open_ahead(cfgs: Sequence[DictConfig], check: Callable[[list[tuple[DictConfig, Source]]], None]) -> None:
    """Opens the data of all runs that are not finished; the first job on them takes what is open. Raises Refused.

    `check` is asked about one config of each kind of data and what looks at them, with the images to train on.
    Where anything is refused, nothing stays open.
    """
    left = [cfg for cfg in cfgs if not Run(run_folder(cfg)).is_finished]
    looking = ("autoencoder", "backbone", "metric", "text")
    kinds = {(_told(cfg), *(str(cfg[key]) for key in looking)): cfg for cfg in left}.values()
    found: dict[str, tuple[Source, Source]] = {}
    for cfg in kinds:
        told = _told(cfg)
        found[told] = _fitting(cfg, *(found[told] if told in found else opened(cfg)))
    if kinds:
        check([(cfg, found[_told(cfg)][0]) for cfg in kinds])
    _ahead.update(found)


def _told(cfg: DictConfig) -> str:
    return OmegaConf.to_yaml(cfg.data, resolve=True)


def sources_of(cfg: DictConfig) -> tuple[Source, Source]:
    """Both splits of a run that has not begun, and whether they fit its other parts. Raises Refused."""
    told = _told(cfg)
    return _fitting(cfg, *(_ahead.pop(told) if told in _ahead else opened(cfg)))


def _fitting(cfg: DictConfig, train: Source, val: Source) -> tuple[Source, Source]:
    for key in ("mean", "std"):
        if cfg.data[key] is not None and len(cfg.data[key]) != train.channels:
            raise Refused(
                f"data.{key}={list(cfg.data[key])}: allowed is null, or a number for each of {train.channels} channels"
            )
    check_cut(cfg, train.size, cfg.autoencoder.get("factor", 1))
    return train, val


def check_cut(cfg: DictConfig, size: tuple[int, int], factor: int) -> None:
    """Raises Refused where the autoencoder and the patches do not cut images of this size."""
    try:
        check_patches(cfg, size, factor)
    except ValueError as error:
        raise Refused(str(error)) from None


def other_data(cfg: DictConfig, folder: Path, train: Source) -> str:
    """Why a run cannot go on with the images of `train`: it was trained on others. Empty where it can."""
    before = data_of(folder)
    if before is None or before == train.fingerprint:
        return ""
    place = cfg.data.source.get("path")
    return (
        f"{folder}: data.name={cfg.data.name}" + (f" data.source.path={place}" if place else "") + " holds other "
        f"training data (fingerprint {train.fingerprint[:8]}) than this run was trained on ({before[:8]}); allowed: "
        "the same images and captions, or another sweep= for a run on these"
    )
