"""A formulation by its name: `formulation("edm(-1.2,1.2)")`, `formulation("rf/lognorm(0,1)")`."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from flowzoo.formulation import names
from flowzoo.formulation.formulation import Formulation


def formulation(name: str) -> Formulation:
    """The formulation of a printed or file name (flowzoo/formulation/names.py). Raises ValueError for any other text.

    What is measured on data cannot be said here: build `flowzoo.formulation.target.F` with the number, and
    `flowzoo.formulation.timestep.Spectrum` with the mixture.
    """
    config = names.parse(name)
    path, weighting = config["path"], config.get("weighting")
    for key, value in {**path["target"], **config["sampler"]}.items():
        if value == "data":
            raise ValueError(f"{name!r}: {key}=data is known only where images are; allowed is a number")
    return Formulation(
        _made(path["schedule"]),
        _made(path["target"]),
        _made(config["sampler"]),
        _made(path["loss"]) if "loss" in path else None,
        _made(weighting) if weighting else None,
        name=names.variant_name(path, config["sampler"], weighting),
    )


def _made(part: Mapping[str, Any]) -> Any:
    module, _, cls = part["_target_"].rpartition(".")
    return getattr(import_module(module), cls)(**{key: value for key, value in part.items() if key != "_target_"})
