"""What is found out once of an autoencoder and kept with a run: statistics of its latents, and what was fitted."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flowzoo.autoencoders.autoencoder import Autoencoder, Fitted
from flowzoo.autoencoders.statistics import HELD_OUT, ChannelStatistics, check, measure, some_images
from flowzoo.data.source import MEASURED, Source
from flowzoo.runs.files import Refused, RunError, write_atomically


def find(autoencoder: Autoencoder, train: Source, val: Source, device: torch.device | str = "cpu") -> ChannelStatistics:
    """Fits an autoencoder that is fitted, and measures its latents; both on at most 10,000 training images.

    Raises Refused where the images cannot be encoded, or those of `val` disagree (`statistics.check`).
    """
    if isinstance(autoencoder, Fitted):
        try:
            autoencoder.fit(some_images(train, MEASURED))
        except ValueError as error:
            raise Refused(f"autoencoder on data {train.name}: {error}") from error
    found = measure(autoencoder, train, MEASURED, device)
    check(found, measure(autoencoder, val, HELD_OUT, device))
    return found


def save(path: Path, autoencoder: Autoencoder, statistics: ChannelStatistics) -> None:
    """Writes the statistics and, of an autoencoder that is fitted, its state. Raises RunError for a full disk."""
    state = autoencoder.state_dict() if isinstance(autoencoder, Fitted) else {}
    tensors = {name: x.cpu().contiguous() for name, x in state.items()}
    about = {"fingerprint": autoencoder.fingerprint, "statistics": json.dumps(asdict(statistics))}
    write_atomically(path, lambda part: save_file(tensors, part, about))


def load(path: Path, autoencoder: Autoencoder) -> ChannelStatistics:
    """The statistics; an autoencoder that is fitted gets its state back.

    Raises RunError where the file cannot be read, or is that of another autoencoder.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        statistics = json.loads(about["statistics"])
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if isinstance(autoencoder, Fitted):
        try:
            cast(Fitted, autoencoder).load_state_dict(state)
        except RuntimeError as error:
            raise RunError(f"{path} is that of another autoencoder: {error}") from error
    if autoencoder.fingerprint != about.get("fingerprint"):
        raise RunError(
            f"{path} is of an autoencoder with fingerprint {about.get('fingerprint')}, and this one's is "
            f"{autoencoder.fingerprint}; allowed: the weights with which the run began"
        )
    return ChannelStatistics(**{name: tuple(values) for name, values in statistics.items()})
