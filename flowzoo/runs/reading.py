"""What a run folder says, read without torch, in whatever state a fault left it.

The functions `parse_*` read the content of one file each and are strict. `RunFolder` reads a whole folder and never
raises: what cannot be read is empty, and `complaints` names it.
"""

import csv
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from flowzoo.runs.files import read_bytes, regular
from flowzoo.runs.identity import backbone_label
from flowzoo.runs.layout import CONFIG, DATA, METRICS, REPORT, RESULTS, STATES, STATUS, absolute, place_of
from flowzoo.runs.lock import LOCK, Held
from flowzoo.runs.representation import representation
from flowzoo.runs.rows import lines, parse_rows

RUN_NAME = re.compile(r"^(?P<variant>.+)-s(?P<seed>\d+)-[0-9a-f]{8}$")
TAIL = 8192  # bytes; a record of metrics.jsonl has some hundreds
DEEPEST = 5000  # brackets in a part of a config
DENSITY, EXTRACTOR = "density.csv", "extractor.json"
HERE = "."  # the folder itself, among the files that cannot be read
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times as fast


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def parse_status(text: str) -> dict[str, Any]:
    """The content of status.json. Raises ValueError for an unknown state or a count that is no integer."""
    status = parse_object(text)
    if status.get("state") not in STATES:
        raise ValueError(f"state={status.get('state')}: allowed are {', '.join(STATES)}")
    for key in ("step", "steps", "attempt"):
        if status.get(key) is not None and type(status[key]) is not int:
            raise ValueError(f"{key}={status[key]!r}: allowed is an integer")
    return status


def parse_config(text: str) -> dict[str, Any]:
    """The content of config.yaml as plain values. Raises ValueError.

    The runs of a sweep share most of their config, so each top-level block is parsed once, whichever run it is in.
    """
    out: dict[str, Any] = {}
    try:
        for block in re.split(r"^(?=[^\s#-])", text, flags=re.MULTILINE):
            out |= _block(block)
    except (yaml.YAMLError, ValueError, RecursionError):  # a block needs another: by hand one may write so
        out = _mapping(text)
    if not out:
        raise ValueError("it holds no config")
    return out


@cache
def _block(text: str) -> dict[str, Any]:
    return _mapping(text)


def _mapping(text: str) -> dict[str, Any]:
    if text.count("[") + text.count("{") > DEEPEST:  # the C loader ends the process
        raise ValueError("it is nested too deeply")
    try:
        loaded = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    if loaded is not None and not isinstance(loaded, dict):
        raise ValueError("it holds no config")
    return loaded or {}


def parse_metrics(content: bytes) -> Iterator[dict[str, Any]]:
    """The records of metrics.jsonl; a line that a crash cut short is passed over."""
    for line in content.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            yield record


class RunFolder:
    """One run folder. Each file is read once, when first asked for; an absent one is empty.

    Args:
        planned: what the sweep's plan says of the run; empty where no plan lists it.
        ended: SLURM's word for how the run's job ended, where it is known to have ended.
    """

    def __init__(self, path: Path, planned: Mapping[str, Any] | None = None, ended: str = "") -> None:
        self.path, self.planned, self.ended = path, planned or {}, ended
        self.unreadable: dict[str, str] = {}  # by file: why

    @property
    def name(self) -> str:
        return self.path.name

    def complaints(self) -> list[str]:
        """One line for each file that cannot be read. State and rows are read for it, the others looked at."""
        _ = self.state, self.rows
        for name in (CONFIG, STATUS, METRICS, RESULTS, DATA, DENSITY, EXTRACTOR):
            if name in self.names - self.unreadable.keys():
                try:
                    self._check(os.stat(self.path / name), name)
                except OSError as error:
                    self._missing(name, error)
        return [f"cannot read {self.path / name}: {why}" for name, why in self.unreadable.items()]

    def _check(self, about: os.stat_result, name: str) -> None:
        if not stat.S_ISREG(about.st_mode):
            self.unreadable[name] = "Is a directory" if stat.S_ISDIR(about.st_mode) else "it is no regular file"
        elif not os.access(self.path / name, os.R_OK):
            self.unreadable[name] = "Permission denied"

    @cached_property
    def names(self) -> set[str]:
        """What lies in the folder."""
        try:
            return set(os.listdir(self.path))
        except OSError as error:
            self._missing(HERE, error)
            return set()

    @property
    def is_run(self) -> bool:
        """Whether this is a run's folder, be it that it cannot be read. A report has results.csv, too."""
        names = self.names
        return bool({CONFIG, STATUS} & names) or (RESULTS in names and REPORT not in names) or HERE in self.unreadable

    # its files

    @cached_property
    def status(self) -> dict[str, Any]:
        return self._parsed(STATUS, parse_status)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml as plain values, its `runs` and `sweep` as the folder lies now."""
        config = self._parsed(CONFIG, parse_config)
        place = place_of(absolute(self.path).parent)
        return {key: place.get(key, value) for key, value in config.items()}

    @cached_property
    def extractor(self) -> dict[str, Any]:
        return self._parsed(EXTRACTOR, parse_object)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        return list(parse_metrics(self._bytes(METRICS)))

    @cached_property
    def last_metrics(self) -> list[dict[str, Any]]:
        """The last records of metrics.jsonl, the newest first; from its end alone, however long it is."""
        return list(parse_metrics(self._bytes(METRICS, last=TAIL)))[::-1]

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The whole rows of results.csv as written."""
        if RESULTS not in self.names or (text := self._text(RESULTS)) is None:
            return []
        rows, wrong = parse_rows(text)
        if wrong:
            self.unreadable[RESULTS] = f"{wrong}; python -m sweeps check says what repairs it"
        return rows

    @cached_property
    def density(self) -> dict[str, list[float]]:
        """Columns u, t, log_snr, density_t of density.csv."""
        records = csv.DictReader(lines(self._text(DENSITY) or ""))
        try:
            rows = [{key: float(value) for key, value in record.items()} for record in records]
        except (TypeError, ValueError, csv.Error):
            self.unreadable[DENSITY] = "it is no table of numbers"
            return {}
        return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}

    @property
    def grid(self) -> Path | None:
        path = self.path / "samples" / "grid.png"
        return path if path.is_file() else None

    @cached_property
    def prompts(self) -> list[str]:
        try:
            text = read_bytes(self.path / "samples" / "prompts.txt").decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.split("\n") if line]

    # what they say

    @cached_property
    def state(self) -> str:
        """One of `ALL_STATES`.

        damaged: the folder or status.json cannot be read. lost: running, and nobody can be training it. Without
        status.json: done where there are rows, else queued where it is planned, else missing.
        """
        state = self.status.get("state")
        if {HERE, STATUS} & self.unreadable.keys():
            return "damaged"
        if state is None:
            return "done" if self.rows else "queued" if self.planned else "missing"
        if state != "running" or not (self.why_lost or LOCK in self.unreadable):
            return state
        again = RunFolder(self.path)  # it may have ended since, and let go of its lock
        if again.status and again.status["state"] != "running":
            self.status = again.status
            return self.status["state"]
        return "lost" if self.why_lost else "damaged"

    @cached_property
    def why_lost(self) -> str:
        """Why nobody can be training this run, by its lock and its job; empty where somebody may be.

        By this host's clock, which is right to a minute or the message is wrong; whoever takes a lock asks the file
        server.
        """
        try:
            held = Held.read(self.path / LOCK)
        except OSError as error:
            self._missing(LOCK, error)
            return ""
        if held is None:
            return "its process ended without a word"
        ended = held.owner is not None and held.owner.job is not None and self.ended
        if held.lost(time.time()) or ended:
            return f"{held} is gone" + (f", its job is {self.ended}" if ended else "")
        return ""

    @property
    def variant(self) -> str:
        """The paper's name of the formulation, or what the folder's name begins with."""
        told = self.status.get("variant") or self._told("variant")
        match = RUN_NAME.match(self.name)
        return str(told) if told else match["variant"] if match else self.name

    @property
    def seed(self) -> str:
        told = next((row["seed"] for row in self.rows if row.get("seed")), None)
        match = RUN_NAME.match(self.name)
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

    @property
    def representation(self) -> str:
        """What the backbone sees of an image, `pca-f4-c16`; empty where neither config nor plan say."""
        return representation(self.config, self.about_data) or str(self.planned.get("representation") or "")

    @cached_property
    def about_data(self) -> dict[str, Any]:
        return self._parsed(DATA, parse_object)

    @property
    def data(self) -> str:
        """The fingerprint of the images that the run was trained on; empty where it did not come so far."""
        return str(self.about_data.get("fingerprint") or "")

    def _told(self, column: str) -> str:
        """By rows or the plan; the config, which takes longer to read, is not asked."""
        return next((row[column] for row in self.rows if row.get(column)), str(self.planned.get(column) or ""))

    @property
    def images_per_s(self) -> float | None:
        speeds = [float(record["images_per_s"]) for record in self.metrics if is_speed(record.get("images_per_s"))]
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

    # reading

    def _parsed(self, name: str, parse: Any) -> dict[str, Any]:
        if name not in self.names or (text := self._text(name)) is None:
            return {}
        try:
            return parse(text)
        except ValueError as error:
            self.unreadable[name] = str(error)
            return {}

    def _text(self, name: str) -> str | None:
        """None where it cannot be read; empty where it is absent."""
        content = self._bytes(name)
        try:
            return None if name in self.unreadable else content.decode()
        except UnicodeDecodeError as error:
            self.unreadable[name] = f"it is no text in UTF-8, at byte {error.start}"
            return None

    def _bytes(self, name: str, last: int | None = None) -> bytes:
        if name not in self.names:
            return b""
        try:
            with open(self.path / name, "rb", opener=regular) as file:
                if last is not None:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - last))
                return file.read()
        except OSError as error:
            self._missing(name, error)
            return b""

    def _missing(self, name: str, error: OSError) -> None:
        """Notes what cannot be read. What has gone since, or never was there, is only absent."""
        if not isinstance(error, FileNotFoundError):
            self.unreadable[name] = error.strerror or str(error)
        elif (self.path / name).is_symlink():
            self.unreadable[name] = f"it is a link to {os.readlink(self.path / name)}, which cannot be followed"


def is_speed(value: Any) -> bool:
    """Whether a record's images_per_s is a speed."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _moment(value: Any) -> float | None:
    """Seconds since the epoch, from a number or an ISO date."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError):
        return None
