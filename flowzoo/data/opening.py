"""What is asked of both splits of a data set before anything is written."""

from typing import Any

from flowzoo.data.source import Source
from flowzoo.runs.files import Refused

_SOURCE = ("name", "image_size", "channels", "fingerprint", "__len__", "images", "captions", "prompt")


def check_source(source: Any, split: str, told: str) -> None:
    """Raises Refused for what is no Source, or has no image. `told` names the data set in messages."""
    if missing := [name for name in _SOURCE if not hasattr(source, name)]:
        raise Refused(
            f"{told}: {type(source).__name__} has no {', '.join(missing)}; allowed: a class like "
            "flowzoo.data.source.Source"
        )
    if not len(source):
        raise Refused(f"{told}: the {split} split has no image")


def check_splits(train: Source, val: Source, told: str) -> None:
    """Raises Refused where the images of the two splits are not of one size."""
    shapes = [f"{s.channels} x {s.image_size} x {s.image_size}" for s in (train, val)]
    if shapes[0] != shapes[1]:
        raise Refused(f"{told}: images are {shapes[0]} in train and {shapes[1]} in val; allowed: one size")
