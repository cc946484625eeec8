"""What a backbone sees of an image, in a few letters: the autoencoder with its parameters, e.g. `pca-f4-c16`."""

from collections.abc import Mapping
from typing import Any

from flowzoo.formulation.declared import own_class
from flowzoo.runs.identity import autoencoder_label


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
    sizes = part.get("factor", about.get("factor")), part.get("channels", about.get("latent_channels"))
    if own_class(str(part["_target_"])) == "Pixels":  # which are always all of them
        sizes = None, None
    return autoencoder_label(part, *sizes).replace("_", "-")
