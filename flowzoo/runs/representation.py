"""What a backbone sees of an image, in a few letters: the autoencoder with its parameters, e.g. `pca-f4-c16`."""

from collections.abc import Mapping
from typing import Any

from flowzoo.formulation.declared import own_class

_WORDS = {"Pixels": "pixels", "BlockPCA": "pca", "KLAutoencoder": "kl", "DiffusersAutoencoder": "diffusers"}
_USUAL = {"gain": 1, "spectrum_power": 0}
_LETTERS = {"gain": "gain", "spectrum_power": "power"}


def representation(config: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The name of a run's representation; empty where the config has no autoencoder.

    Weights are no part of it: two kl autoencoders of one factor and as many channels share a name, and runs with them
    are told apart as runs that were trained differently are.

    Args:
        config: of the run.
        about: the content of data.json, which alone knows the factor and channels of trained weights.
    """
    part = config.get("autoencoder")
    if not isinstance(part, Mapping) or "_target_" not in part:
        return ""
    target = str(part["_target_"])
    cls = own_class(target) or target.rpartition(".")[2]
    words = [_WORDS.get(cls, cls.lower())]
    if cls != "Pixels":
        sizes = {"f": part.get("factor", about.get("factor")), "c": part.get("channels", about.get("latent_channels"))}
        words += [f"{letter}{value}" for letter, value in sizes.items() if value is not None]
    words += [f"{_LETTERS[key]}{part[key]:g}" for key, usual in _USUAL.items() if part.get(key, usual) != usual]
    return "-".join(words)
