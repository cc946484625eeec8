"""Runs as their folders tell them: config, status, losses, scores and pictures, read from files alone."""

import csv
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from analysis.results import Results, build, natural
from analysis.words import flatten
from flowzoo.runs.identity import NOT_IN_HASH, backbone_label
from flowzoo.runs.lock import LOCK, Held

_RUN_NAME = re.compile(r"^(?P<variant>.+)-s(?P<seed>\d+)-[0-9a-f]{8}$")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times as fast
# What the other columns tell of a run, and what is no part of its training but how sigma_data and captions are named.
_NOT_TRAINING = tuple(
    f"{key}." for key in (*NOT_IN_HASH, "path", "sampler", "variant", "seed") if key not in ("sigma_data", "captions")
)
_PLAN = "plan.jsonl"  # of a sweep's folder: a header, then a line a run


@dataclass(frozen=True)
class Run:
    """One run folder; every file is read when first asked for, and an absent or broken one is empty and noted.

    `planned` is the run's line in the sweep's plan, where there is one: what is known of a run that has not begun.
    """

    folder: Path
    planned: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def config(self) -> dict[str, Any]:
        text = self._text("config.yaml")
        try:
            return _mapping(text)
        except yaml.YAMLError:
            self.notes.append("config.yaml is not readable")
            return {}

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
        """Rows of results.csv as written; a row cut short is passed over and noted, even inside its last cell."""
        text = self._text("results.csv")
        lines = text.splitlines()
        if text and not text.endswith("\n"):
            lines.pop()
        header, *rows = list(csv.reader(lines)) or [[]]
        whole = [dict(zip(header, cells, strict=True)) for cells in rows if len(cells) == len(header)]
        if len(lines) < len(text.splitlines()) or len(whole) < len(rows):
            self.notes.append("results.csv is cut short: python -m sweeps check says what repairs it")
        return whole

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
        """The state of status.json; where that is absent, done with scores, else queued if planned, else missing.

        A run that says that it is running, and whose lock is gone or its owner's no more, is lost.
        """
        absent = "done" if self.rows else "queued" if self.planned else "missing"
        state = str(self.status.get("state") or absent)
        return "lost" if state == "running" and self._is_abandoned else state

    @cached_property
    def _is_abandoned(self) -> bool:
        held = Held.read(self.folder / LOCK)
        return held is None or held.lost(time.time())

    @property
    def variant(self) -> str:
        """The paper's name of the formulation, or what the folder's name begins with."""
        told = self.status.get("variant") or next((row["variant"] for row in self.rows if row.get("variant")), None)
        told = told or self.planned.get("variant")
        match = _RUN_NAME.match(self.name)
        return str(told) if told else match["variant"] if match else self.name

    @property
    def seed(self) -> str:
        told = next((row["seed"] for row in self.rows if row.get("seed")), None)
        match = _RUN_NAME.match(self.name)
        return told or (match["seed"] if match else str(self.config.get("seed", "")))

    @property
    def dataset(self) -> str:
        """The data set as rows name it; empty where neither rows, plan nor config say."""
        if told := self._told("dataset"):
            return told
        data = self.config.get("data")
        return str((data.get("name") if isinstance(data, dict) else None) or "")

    @property
    def backbone(self) -> str:
        """The backbone as rows name it; empty where neither rows, plan nor config say."""
        if told := self._told("backbone"):
            return told
        config = self.config.get("backbone")
        return backbone_label({"backbone": config}) if isinstance(config, dict) and "_target_" in config else ""

    def _told(self, column: str) -> str:
        """By rows or the plan; the config, which takes longer to read, is not asked."""
        return next((row[column] for row in self.rows if row.get(column)), str(self.planned.get(column) or ""))

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


def _mapping(text: str) -> dict[str, Any]:
    """A YAML mapping in block style, as config.yaml is written; empty where the text is none.

    The runs of a sweep share most of their config, so each top-level block is parsed once, whichever run it is in.
    """
    out: dict[str, Any] = {}
    for block in re.split(r"^(?=[^\s#-])", text, flags=re.MULTILINE):
        out |= _block(block)
    return out


@cache
def _block(text: str) -> dict[str, Any]:
    loaded = yaml.load(text, Loader=_Loader)
    return loaded if isinstance(loaded, dict) else {}


def collect(roots: Iterable[Path]) -> list[Run]:
    """Every run at or below the given folders, by name, and those that a plan there lists and that have no folder yet.

    Raises:
        ValueError: a root is no folder, or holds no run.
    """
    found: dict[Path, Run] = {}
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder of runs")
        planned = dict(_planned(root))
        below = {folder: Run(folder, planned.get(folder, {})) for folder in (*planned, *_folders(root))}
        if not below:
            raise ValueError(f"{root} holds no run: no folder in it has a config.yaml, status.json or results.csv")
        found.update({folder.resolve(): run for folder, run in below.items()})
    return sorted(found.values(), key=lambda run: [natural(part) for part in re.split(r"[-_]", run.name)])


def _folders(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        if "trials.csv" in files:  # a search: its runs are points of its own section, not variants to rank
            folders.clear()
            continue
        is_report = "report.html" in files  # kept beside its runs, with a results.csv of all of them
        if not is_report and {"config.yaml", "status.json", "results.csv"} & set(files):
            yield Path(place)
            folders.clear()
        folders.sort()


def _planned(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of the runs that the plans in a folder and right below it list, with what they say of each."""
    for plan in sorted({*root.glob(_PLAN), *root.glob(f"*/{_PLAN}")}):
        for line in plan.read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
            try:
                known = json.loads(line)
                folder = plan.parent / known["id"]
            except (json.JSONDecodeError, KeyError, TypeError):
                continue  # `sweeps check` is there for broken plans
            yield folder, {key: known.get(key) for key in ("variant", "dataset", "backbone", "steps")}


def results(runs: Sequence[Run]) -> Results:
    """The rows of all runs. The state of a run holds for its rows, and a run without rows is named without scores.

    Where runs of one variant and seed were trained differently, the column `training` says how each of all runs was.

    Raises:
        ValueError: two runs have a row for the same (variant, seed, setting), or a cell is no number.
    """
    records: list[tuple[str, dict[str, str]]] = []
    training = trained_with(runs)
    for run in runs:
        state, source = run.state, str(run.folder)
        ended = {"status": "missing" if state == "done" else state, "exception": run.exception}
        how = {"training": training[run.folder]} if training else {}
        own = [{**row, **how} for row in run.rows if row.get("variant")]
        for row in own:
            is_baseline = row.get("weights") == "init"
            records.append((source, row if state == "done" or is_baseline else {**row, **ended}))
        if all(row.get("weights") == "init" for row in own):
            named = {"run": run.name, "variant": run.variant, "seed": run.seed}
            where = {"dataset": run.dataset, "backbone": run.backbone, **how}
            records.append((source, {**named, **where, **ended}))
    return build(records)


def trained_with(runs: Sequence[Run]) -> dict[Path, str]:
    """Each run's values of the config keys that alone tell runs of one variant and seed apart, by folder.

    Empty where there are no such runs; a run whose config is not there says nothing.
    """
    alike: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for run in runs:
        alike[run.variant, run.seed, run.dataset, run.backbone].append(run.folder)
    if len(alike) == len(runs):  # as nearly always: no config needs to be read
        return {}
    values = {run.folder: flatten(run.config) if run.config else {} for run in runs}
    keys: set[str] = set()
    for folders in alike.values():
        some = [values[folder] for folder in folders if values[folder]]
        keys |= {name for own in some for name in own if len({other.get(name) for other in some}) > 1}
    keys = {key for key in keys if not f"{key}.".startswith(_NOT_TRAINING)}
    # A value that others are interpolated from is told once, by its shortest name.
    told = {tuple(own.get(key) for own in values.values()): key for key in sorted(keys, key=len, reverse=True)}
    return {
        folder: ", ".join(f"{key}={own[key]}" for key in sorted(told.values()) if key in own)
        for folder, own in values.items()
        if told
    }
