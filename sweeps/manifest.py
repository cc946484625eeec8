"""plan.jsonl of a sweep's folder: every run with its resolved config, frozen when the sweep was planned."""

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf

from flowzoo.runs.columns import config_columns, swept
from flowzoo.runs.files import RunError, read_bytes, replace, saying
from flowzoo.runs.finding import parse_plan
from flowzoo.runs.identity import backbone_label, comparable, run_name, run_variant
from flowzoo.runs.layout import PLAN, place_of
from flowzoo.runs.reading import RunFolder
from flowzoo.runs.store import Run
from sweeps.words import is_execution, place


@dataclass(frozen=True)
class Planned:
    """One run. `id` is its folder's name; `config` is resolved but for the logger, which asks for its run's folder."""

    id: str
    variant: str
    seed: int
    dataset: str
    backbone: str
    steps: int
    batch_size: int
    config: dict[str, Any]

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """The plan of a run's own config, resolved but for the logger."""
        return cls(
            id=run_name(config),
            variant=run_variant(config),
            seed=config["seed"],
            dataset=config["data"]["name"],
            backbone=backbone_label(config),
            steps=config["trainer"]["steps"],
            batch_size=config["trainer"]["batch_size"],
            config=config,
        )

    @property
    def cfg(self) -> DictConfig:
        cfg = OmegaConf.create(self.config)
        OmegaConf.set_struct(cfg, True)
        return cfg


@dataclass(frozen=True)
class Manifest:
    """The plan of a sweep: the words that it was planned with, and those of them that only say how it is executed."""

    folder: Path
    sweep: str
    created: str
    code_version: str
    command: list[str]
    execution: list[str]
    runs: tuple[Planned, ...]

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """The plan in a sweep's folder, for runs that go there. Raises RunError where there is none to be read."""
        return cls.read_file(Path(folder) / PLAN, Path(folder))

    @classmethod
    def read_file(cls, path: Path, folder: Path) -> Self:
        """A plan that is kept in any file, also compressed (.gz), for runs that go to `folder`. Raises RunError."""
        try:
            content = read_bytes(path)
            known, lines, wrong = parse_plan((gzip.decompress(content) if path.suffix == ".gz" else content).decode())
            if wrong:
                raise ValueError(wrong)
            runs = tuple(Planned(**line) for line in lines)
            for planned in runs:
                planned.config.update(place_of(folder))
            del known["runs"]
            return cls(folder=folder, runs=runs, **known)
        except FileNotFoundError:
            raise RunError(
                f"{path.parent} holds no plan: python -m sweeps plan SWEEP makes one, as run and submit do"
            ) from None
        except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(
                f"cannot read {path}: {error}; python -m sweeps plan SWEEP --replace writes it anew"
            ) from error

    def write(self) -> None:
        """Replaces plan.jsonl. Raises RunError."""
        header = {key: getattr(self, key) for key in ("sweep", "created", "code_version", "command", "execution")}
        lines = [json.dumps(header | {"runs": len(self.runs)}), *(json.dumps(vars(planned)) for planned in self.runs)]
        with saying(f"cannot create {self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
        replace(self.folder / PLAN, "\n".join(lines) + "\n")

    @cached_property
    def by_id(self) -> dict[str, Planned]:
        return {planned.id: planned for planned in self.runs}

    @cached_property
    def swept(self) -> dict[str, str]:
        """By id, what a run has otherwise than others of the plan: `optimizer.lr=0.001`, empty where nothing is."""
        told = swept([config_columns(planned.config) for planned in self.runs])
        return dict(zip(self.by_id, told, strict=True))

    def named(self, planned: Planned) -> str:
        """A run as people read of it: variant, swept keys and seed."""
        return named(planned.variant, self.swept[planned.id], planned.seed)

    def run(self, planned: Planned) -> Run:
        """A planned run, to write in."""
        return Run(self.folder / planned.id)

    def read_run(self, planned: Planned, ended: str = "") -> RunFolder:
        """What the folder of a planned run says; `ended` as `RunFolder`."""
        return RunFolder(self.folder / planned.id, vars(planned), ended)

    def chosen(self, ids: Iterable[str]) -> list[Planned]:
        """The runs of these ids, in the order of the plan. Raises RunError for an id that is not planned."""
        wanted = set(ids)
        if unknown := wanted - self.by_id.keys():
            raise RunError(f"{', '.join(sorted(unknown))}: not in the plan of {self.folder}")
        return [planned for planned in self.runs if planned.id in wanted]

    def differences(self, other: "Manifest") -> list[str]:
        """What `other` plans differently, one line each; empty where both train and score the same."""
        lines = [f"{planned.id} is not planned" for planned in other.runs if planned.id not in self.by_id]
        lines += [f"{planned.id} is planned" for planned in self.runs if planned.id not in other.by_id]
        for planned in self.runs:
            if planned.id in other.by_id and (words := departure(planned.config, other.by_id[planned.id].config)):
                lines.append(f"{planned.id}: {words}")
        return lines


def named(variant: str, swept: str, seed: int) -> str:
    """A run as people read of it."""
    return ", ".join(filter(None, (variant, swept, f"seed {seed}")))


def is_plan(sweep: str) -> bool:
    """Whether a command's SWEEP is a file with a plan, kept in another place than a sweep's folder."""
    return sweep.endswith((".jsonl", ".jsonl.gz")) and Path(sweep).is_file()


def kept_plan(sweep: str, words: Sequence[str]) -> Manifest:
    """The plan in a file, for runs that go to the folder that its name and the words say. Raises as `place`."""
    header = Manifest.read_file(Path(sweep), Path())
    return Manifest.read_file(Path(sweep), place(header.sweep, (*header.command, *words)))


def departure(planned: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """How a resolved config would train or score differently from what is planned; empty where it would not."""
    if planned == config:
        return ""
    ours, theirs = _flat(comparable(planned)), _flat(comparable(config))
    keys = [key for key in {**ours, **theirs} if ours.get(key, _NOTHING) != theirs.get(key, _NOTHING)]
    return ", ".join(f"{key}={theirs.get(key, _NOTHING)}, planned {ours.get(key, _NOTHING)}" for key in keys)


_NOTHING = "nothing"


def _flat(node: Any, key: str = "") -> dict[str, Any]:
    """The leaves of a config by their dotted names, without what can change neither a weight nor a score."""
    if is_execution(key) or key in ("runs", "sweep"):
        return {}
    if not isinstance(node, Mapping):
        return {key: node}
    return {k: v for name, part in node.items() for k, v in _flat(part, f"{key}.{name}" if key else str(name)).items()}
