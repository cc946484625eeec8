"""Which keys of commands and config files are text: taken as they were typed, also where they look like a number.

Hydra and YAML read 2026_11_26 as the integer 20261126, 12e4567 as infinity and 2024 as a number that is no path.
flowzoo/runs/parse.py keeps them text in commands, flowzoo/runs/yamlfile.py in our own YAML files. Without Hydra.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

# Names, paths and words of one kind or another. `*` stands for any part of a key.
TEXT = (
    *("sweep", "runs", "variant", "experiment", "run", "prompt", "prompts", "out", "output", "storage"),
    *("data.name", "data.source.name", "data.source.path", "data.source.val_path", "data.source.template"),
    *("data.source.background", "data.source.captions", "data.source.synthetic"),
    *("data.source.annotations", "data.source.val_annotations", "data.source.image", "data.source.caption"),
    *("data.source.config", "data.source.revision", "data.source.train_split", "data.source.val_split"),
    *("extractor.weights", "extractor.model_name"),
    *("text.encoders.*.weights", "autoencoder.weights", "perceptual.weights"),
    *("logger.project", "logger.entity", "logger.group", "logger.name", "logger.id", "logger.version"),
    *("logger.save_dir", "cluster.partition", "cluster.account", "cluster.qos", "cluster.constraint", "cluster.python"),
)
# Options of groups are file names.
GROUPS = (
    *(
        "path",
        "path/*",
        "sampler",
        "weighting",
        "backbone",
        "data",
        "text",
        "autoencoder",
        "solver",
        "solver/*",
        "extractor",
    ),
    *("trainer", "optimizer", "optimizer/*", "ema", "evaluation", "logger", "halving", "cluster", "clip"),
    *("perceptual", "critic"),
)
# Lists and mappings with nothing but text in them.
TEXTS = ("data.source.names", "cluster.setup", "hydra.searchpath")


def key_of(word: str) -> str:
    """`trainer.steps` of `trainer.steps=3`, `logger` of `+logger.x=1`, `path.schedule` of `path/schedule@path=rf`."""
    return typed_key(word).replace("/", ".")


def typed_key(word: str) -> str:
    """The key of a word as it was typed, without `+`, `~` and a package."""
    return word.split("=", 1)[0].lstrip("+~").split("@")[0]


def is_text(key: str) -> bool:
    """Whether the value of a key is one text."""
    return any(fnmatchcase(key, pattern) for pattern in (*TEXT, *GROUPS))


def holds_texts(key: str) -> bool:
    """Whether the value of a key is a list or a mapping with nothing but text in it."""
    return key in TEXTS


def check_text(values: Mapping[str, Any]) -> None:
    """Raises ValueError where a resolved config holds something else than text, for instance from a config file."""
    for key, value in _leaves(values):
        if not (value is None or isinstance(value, str)) and any(fnmatchcase(key, pattern) for pattern in TEXT):
            raise ValueError(f"{key}={value}: this is no text; allowed is text, which a YAML file has in quotes")


def _leaves(node: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, with its dotted key; mappings as well where a text should be."""
    for name, value in node.items():
        key = f"{place}.{name}" if place else str(name)
        if isinstance(value, Mapping) and not any(fnmatchcase(key, pattern) for pattern in TEXT):
            yield from _leaves(value, key)
        else:
            yield key, value
