"""Both splits of a data set, opened and asked what only they know, before anything is written."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from flowzoo.data.source import Source
from flowzoo.runs.files import Refused

_SOURCE = ("name", "image_size", "channels", "fingerprint", "__len__", "images", "captions", "prompt")


def opened(data: DictConfig, **settings: Any) -> tuple[Source, Source]:
    """The train and the val split of the config group `data`; `settings` are added to those of its source.

    Raises:
        Refused: the class refuses its parameters or its files, is no Source, or its splits do not fit together.
    """
    told = f"data {data.name}"
    try:
        train, val = (instantiate(data.source, split=split, **settings) for split in ("train", "val"))
    except InstantiationException as error:
        if not isinstance(error.__cause__, ValueError | OSError | TypeError):
            raise
        raise Refused(f"{told}: {error.__cause__}") from error.__cause__
    for split, source in (("train", train), ("val", val)):
        if missing := [name for name in _SOURCE if not hasattr(source, name)]:
            raise Refused(
                f"{told}: {type(source).__name__} has no {', '.join(missing)}; allowed: a class like "
                "flowzoo.data.source.Source"
            )
        if not len(source):
            raise Refused(f"{told}: the {split} split has no image")
    shapes = [f"{s.channels} x {s.image_size} x {s.image_size}" for s in (train, val)]
    if shapes[0] != shapes[1]:
        raise Refused(f"{told}: images are {shapes[0]} in train and {shapes[1]} in val; allowed: one size")
    return train, val
