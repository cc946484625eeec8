"""A sweep file: which variants, data sets, backbones and seeds are crossed, and what all of them have in common."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from flowzoo.formulation import names

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sweep:
    """`variants` holds printed names. `overrides` are words of flowzoo.train's command line, common to all runs."""

    name: str
    variants: Sequence[str]
    data: Sequence[str] = ("shapes",)
    backbones: Sequence[str] = ("mmdit",)
    seeds: Sequence[int] = (0,)
    overrides: Sequence[str] = field(default=())

    def command(self, extra: Sequence[str] = ()) -> list[str]:
        """The overrides of one Hydra multirun; `extra` come last and win. All variants of one seed come first."""
        crossed = {
            "sweep": [self.name],
            "seed": [str(seed) for seed in self.seeds],
            "data": self.data,
            "backbone": self.backbones,
            "variant": [names.file_name(name) for name in self.variants],
        }
        words = [*self.overrides, *extra]
        # the engine of a sweep is the trainer of its runs
        words = [f"trainer={w.removeprefix('engine=')}" if w.startswith("engine=") else w for w in words]
        return [*(f"{key}={','.join(values)}" for key, values in crossed.items()), *words]


def sweep_names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def load(sweep: str) -> Sweep:
    """The sweep of that name, or of that YAML file. Raises ValueError for an unknown sweep, key or variant."""
    path = HERE / f"{sweep}.yaml" if sweep in sweep_names() else Path(sweep)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ValueError(f"sweep {sweep}: allowed are {', '.join(sweep_names())}, or a YAML file")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    allowed = [f.name for f in fields(Sweep) if f.name != "name"]
    if not isinstance(content, dict) or "variants" not in content:
        raise ValueError(f"{path}: allowed are the keys {', '.join(allowed)}, of which variants is required")
    if unknown := [key for key in content if key not in allowed]:
        raise ValueError(f"{path}: key {', '.join(map(str, unknown))}: allowed are {', '.join(allowed)}")
    for key, value in content.items():
        if not isinstance(value, list) and (key, value) != ("variants", "all"):
            raise ValueError(f"{path}: {key}={value}: allowed is a list")
    if content["variants"] == "all":
        content["variants"] = list(names.TABLE)
    if unknown := [name for name in content["variants"] if name not in names.TABLE]:
        raise ValueError(f"{path}: variant {', '.join(map(str, unknown))}: allowed are {', '.join(names.TABLE)}")
    return Sweep(name=path.stem, **content)
