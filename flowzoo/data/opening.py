"""What is asked of both splits of a data set before anything is written."""

from typing import Any

from flowzoo.data.source import Source
from flowzoo.runs.files import Refused
from flowzoo.sizes import shown

_SOURCE = ("name", "size", "channels", "fingerprint", "__len__", "images", "captions", "prompt")


def check_source(source: Any, split: str, told: str) -> None:
    """Raises Refused for what is no Source, has no size or has no image. `told` names the data set in messages."""
    if missing := [name for name in _SOURCE if not hasattr(source, name)]:
        raise Refused(
            f"{told}: {type(source).__name__} has no {', '.join(missing)}; allowed: a class like "
            "flowzoo.data.source.Source"
        )
    size = source.size
    if not isinstance(size, tuple) or len(size) != 2 or not all(isinstance(n, int) and n >= 1 for n in size):
        raise Refused(f"{told}: {type(source).__name__}.size is {size!r}; allowed: (H, W), the pixels of its images")
    if not len(source):
        raise Refused(f"{told}: the {split} split has no image")


def check_splits(train: Source, val: Source, told: str) -> None:
    """Raises Refused where the images of the two splits are not of one size."""
    shapes = [shown((s.channels, *s.size)) for s in (train, val)]
    if shapes[0] != shapes[1]:
        raise Refused(f"{told}: images are {shapes[0]} in train and {shapes[1]} in val; allowed: one size")
