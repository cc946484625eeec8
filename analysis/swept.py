"""Each variant at each value of a swept key as a contender of its own, so that values compare as variants do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.collect import trained_with
from analysis.judges import alike
from analysis.results import Results, build
from flowzoo.runs.columns import config_columns, keys_apart
from flowzoo.runs.identity import backbone_label
from flowzoo.runs.reading import RunFolder
from flowzoo.runs.representation import representation


@dataclass(frozen=True)
class Contender:
    """A variant with some keys' values, as cells; empty where its runs have no such key."""

    variant: str
    keys: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        return ", ".join([self.variant, *self.said])

    @property
    def cells(self) -> dict[str, str]:
        return dict(zip(self.keys, self.values, strict=True))

    @property
    def said(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.cells.items()]


def swept_keys(runs: Iterable[RunFolder]) -> list[str]:
    """The keys of training that differ among runs of one data set, in whatever variants and seeds."""
    return keys_apart(((run.dataset,), config_columns(run.config)) for run in runs)


def contenders(
    rows: Results, runs: Sequence[RunFolder], keys: Sequence[str], together: Sequence[str] = ()
) -> tuple[Results, dict[str, Contender]]:
    """The rows with contenders in the place of variants, and these by name.

    What else the keys say is no longer told: a backbone of several depths is one backbone, and protocols that differ
    in the autoencoder alone are one.

    Args:
        rows: of these runs.
        runs: as found.
        keys: of the config, that differ among these runs.
        together: as `collect.results`.

    Raises:
        ValueError: a key does not differ, or one contender has two rows for one seed and setting.
    """
    by_source = {str(run.path): run for run in runs}
    kept = [by_source[source] for source in dict.fromkeys(row.source for row in rows.rows) if source in by_source]
    cells = {str(run.path): config_columns(run.config) for run in kept}
    swept = swept_keys(kept)
    for key in keys:
        if len({own.get(key) for own in cells.values()}) < 2:
            allowed = f"allowed are {', '.join(swept)}" if swept else "they differ in none"
            raise ValueError(f"{key}: no two of these runs differ in it; {allowed}")
    kinds = {source: _kind(by_source[source], keys) for source in cells}
    training = trained_with(kept, [*together, *keys], [tuple(kind.values()) for kind in kinds.values()])
    trained = dict(zip(cells, training, strict=True))
    standing = alike(kept) if any(key.startswith("autoencoder.") for key in keys) else {}
    named, records = {}, []
    for row in rows.rows:
        own = cells[row.source]
        one = Contender(row.variant, tuple(keys), tuple(own.get(key, "") for key in keys))
        named[one.name] = one
        record = {**row.record, "variant": one.name, **kinds[row.source]}
        record.pop("training", None)
        if "protocol" in record:
            record["protocol"] = standing.get(record["protocol"], record["protocol"])
        records.append((row.source, record | ({"training": trained[row.source]} if any(training) else {})))
    return build(records), named


def _kind(run: RunFolder, keys: Sequence[str]) -> dict[str, str]:
    """Its data set, representation and backbone, less what these keys say of them."""
    config, about, kind = run.config, run.about_data, {"dataset": run.dataset}
    of_autoencoder, of_backbone = (_of_part(keys, part, config) for part in ("autoencoder", "backbone"))
    kind["representation"], kind["backbone"] = run.representation, run.backbone
    if of_autoencoder:
        part = {key: value for key, value in config["autoencoder"].items() if key not in of_autoencoder}
        about = {} if {"channels", "factor"} & of_autoencoder else about
        kind["representation"] = representation({**config, "autoencoder": part}, about)
    if of_backbone:
        part = {key: None if key in of_backbone else value for key, value in config["backbone"].items()}
        kind["backbone"] = backbone_label({"backbone": part})
    return kind


def _of_part(keys: Iterable[str], name: str, config: Mapping[str, Any]) -> set[str]:
    """The names within a part of a config of those of the keys that it has."""
    part = config.get(name)
    own = {key.removeprefix(f"{name}.") for key in keys if key.startswith(f"{name}.")}
    return own & part.keys() if isinstance(part, dict) else set()
