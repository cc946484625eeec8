"""Runs as their folders tell them: config, status, losses, scores and pictures, read from files alone."""

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from analysis.results import Results, build, natural

_RUN_NAME = re.compile(r"^(?P<variant>.+)-s(?P<seed>\d+)-[0-9a-f]{8}$")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times as fast


@dataclass(frozen=True)
class Run:
    """One run folder; every file is read when first asked for, and an absent or broken one is empty and noted."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    @cached_property
    def config(self) -> dict[str, Any]:
        text = self._text("config.yaml")
        try:
            loaded = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError:
            self.notes.append("config.yaml is not readable")
            return {}
        return loaded if isinstance(loaded, dict) else {}

    @cached_property
    def status(self) -> dict[str, Any]:
        return self._object("status.json")

    @cached_property
    def extractor(self) -> dict[str, Any]:
        return self._object("extractor.json")

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Records of metrics.jsonl; a half-written line is passed over."""
        records = []
        for line in self._text("metrics.jsonl").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict) and "step" in record:
                records.append(record)
        return records

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """Rows of results.csv as written; a row cut short is passed over."""
        lines = csv.reader(self._text("results.csv").splitlines())
        header = next(lines, [])
        return [dict(zip(header, cells, strict=True)) for cells in lines if len(cells) == len(header)]

    @cached_property
    def density(self) -> dict[str, list[float]]:
        """Columns u, t, log_snr, density_t of density.csv."""
        lines = csv.DictReader(self._text("density.csv").splitlines())
        try:
            rows = [{key: float(value) for key, value in line.items()} for line in lines]
        except (TypeError, ValueError):
            self.notes.append("density.csv is not readable")
            return {}
        return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}

    @property
    def grid(self) -> Path | None:
        path = self.folder / "samples" / "grid.png"
        return path if path.is_file() else None

    @cached_property
    def prompts(self) -> list[str]:
        return [line for line in self._text("samples/prompts.txt").splitlines() if line]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> str:
        """The state of status.json; where that is absent, done if there are scores and missing if not."""
        return str(self.status.get("state") or ("done" if self.rows else "missing"))

    @property
    def variant(self) -> str:
        """The paper's name of the formulation, or what the folder's name begins with."""
        told = self.status.get("variant") or next((row["variant"] for row in self.rows if row.get("variant")), None)
        match = _RUN_NAME.match(self.name)
        return str(told) if told else match["variant"] if match else self.name

    @property
    def seed(self) -> str:
        told = next((row["seed"] for row in self.rows if row.get("seed")), None)
        match = _RUN_NAME.match(self.name)
        return told or (match["seed"] if match else str(self.config.get("seed", "")))

    def named(self, group: str) -> str:
        """The name that a config group gives itself; empty where the config is silent."""
        value = self.config.get(group)
        return str(value.get("name", "")) if isinstance(value, dict) else ""

    @property
    def images_per_s(self) -> float | None:
        speeds = [float(record["images_per_s"]) for record in self.metrics if record.get("images_per_s")]
        return median(speeds) if speeds else None

    @property
    def seconds(self) -> float | None:
        """From the start to the end of the last attempt."""
        started, finished = (_moment(self.status.get(key)) for key in ("started", "finished"))
        return finished - started if started is not None and finished is not None else None

    @property
    def exception(self) -> str:
        """The last line of what stopped the run."""
        lines = str(self.status.get("exception") or "").strip().splitlines()
        return lines[-1] if lines else ""

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _object(self, name: str) -> dict[str, Any]:
        text = self._text(name)
        try:
            loaded = json.loads(text) if text else {}
        except json.JSONDecodeError:
            self.notes.append(f"{name} is not readable")
            return {}
        return loaded if isinstance(loaded, dict) else {}


def _moment(value: Any) -> float | None:
    """Seconds since the epoch, from a number or an ISO date."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError):
        return None


def collect(roots: Iterable[Path]) -> list[Run]:
    """Every run at or below the given folders, by name.

    Raises:
        ValueError: a root is no folder, or holds no run.
    """
    found: dict[Path, Run] = {}
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder of runs")
        below = list(_folders(root))
        if not below:
            raise ValueError(f"{root} holds no run: no folder in it has a config.yaml, status.json or results.csv")
        found.update({folder.resolve(): Run(folder) for folder in below})
    return sorted(found.values(), key=lambda run: [natural(part) for part in re.split(r"[-_]", run.name)])


def _folders(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        is_report = "report.html" in files  # kept beside its runs, with a results.csv of all of them
        if not is_report and {"config.yaml", "status.json", "results.csv"} & set(files):
            yield Path(place)
            folders.clear()
        folders.sort()


def results(runs: Sequence[Run]) -> Results:
    """The rows of all runs. The state of a run holds for its rows, and a run without rows is named without scores.

    Raises:
        ValueError: two runs have a row for the same (variant, seed, setting), or a cell is no number.
    """
    records: list[tuple[str, dict[str, str]]] = []
    for run in runs:
        state = run.state
        own = [row for row in run.rows if row.get("variant")]
        for row in own:
            is_baseline = row.get("weights") == "init"
            records.append((str(run.folder), row if state == "done" or is_baseline else {**row, "status": state}))
        if all(row.get("weights") == "init" for row in own):
            named = {"run": run.name, "variant": run.variant, "seed": run.seed}
            where = {"dataset": run.named("data"), "backbone": run.named("backbone")}
            status = "missing" if state == "done" else state
            records.append((str(run.folder), {**named, **where, "status": status}))
    return build(records)
