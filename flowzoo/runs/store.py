"""The run folder is the database: config.yaml, status.json, metrics.jsonl, results.csv. Nothing else keeps state.

Every file that is replaced is written beside its name, flushed to the disk and renamed: whoever reads sees the old
content or the new one, whole, whenever the writer dies.
"""

import csv
import fcntl
import io
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from flowzoo import __version__
from flowzoo.runs.identity import run_folder, run_variant

STATES = ("queued", "running", "done", "failed", "preempted", "diverged", "stopped")
FINISHED = ("done", "diverged")  # diverged is a result: the same run would diverge again
ENDED = ("done", "failed", "preempted", "diverged", "stopped")

# The columns of results.csv in their order, with what a cell holds.
COLUMNS: dict[str, type] = {
    **{"run": str, "variant": str, "dataset": str, "backbone": str, "seed": int, "step": int, "weights": str},
    **{"rule": str, "grid": str, "shift": float, "steps": int, "guidance": float, "nfe": int, "n_samples": int},
    **{"fid": float, "clip": float, "path_length": float, "seconds": float, "status": str, "protocol": str},
}
SETTING = ("dataset", "backbone", "weights", "rule", "grid", "shift", "steps", "guidance", "protocol")

T = TypeVar("T")


class RunError(Exception):
    """A run folder cannot be read or written; the message is for the user."""


class RunBusy(RunError):
    """Another process trains this run."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved itself; the same command goes on.

    A KeyboardInterrupt, so that no `except Exception` on the way takes it for one failed job among others.
    """


class Run:
    """One run folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, cfg: DictConfig) -> Self:
        """The run of `cfg`, its folder made and its resolved config written. Raises RunError.

        A finished run keeps its config, which says how its rows came about.
        """
        run = cls(run_folder(cfg))
        with _saying(f"cannot create the run folder {run.path}"):
            run.path.mkdir(parents=True, exist_ok=True)
        if run.state not in FINISHED:
            resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
            run._replace("config.yaml", OmegaConf.to_yaml(resolved))
        if run.state is None:
            run.set_status("queued", variant=run_variant(cfg))
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """An existing run folder. Raises RunError for a folder that is none."""
        run = cls(path)
        if not run.path.is_dir():
            raise RunError(f"there is no folder {run.path}")
        if not (run.path / "config.yaml").is_file():
            raise RunError(f"{run.path} is no run folder: it has no config.yaml (allowed: runs/<sweep>/<run>)")
        return run

    @property
    def config(self) -> DictConfig:
        try:
            cfg = OmegaConf.load(self.path / "config.yaml")
        except Exception as error:  # OSError, or any of the YAML reader's own errors
            raise RunError(f"cannot read {self.path / 'config.yaml'}: {error}") from error
        if not isinstance(cfg, DictConfig):
            raise RunError(f"{self.path / 'config.yaml'} holds no config")
        OmegaConf.set_struct(cfg, True)
        return cfg

    # status.json

    @property
    def status(self) -> dict[str, Any]:
        """The content of status.json; empty where there is none yet."""
        path = self.path / "status.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error

    @property
    def state(self) -> str | None:
        return self.status.get("state")

    def set_status(self, state: str, **fields: Any) -> None:
        """Replaces status.json, keeping what earlier calls wrote. Each process that starts it is one attempt."""
        if state not in STATES:
            raise ValueError(f"state {state!r}: allowed are {', '.join(STATES)}")
        old = self.status
        here = {"host": socket.gethostname(), "pid": os.getpid()}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        new: dict[str, Any] = {"attempt": 0, "exception": None, "started": None, "finished": None}
        new |= old | {"state": state, "updated": now}
        goes_on = old.get("state") == "running" and all(old.get(key) == value for key, value in here.items())
        if state == "running" and not goes_on:
            new |= {"attempt": new["attempt"] + 1, "started": now, "finished": None, "exception": None}
            new |= {"code_version": code_version(), **here}
        if state in ENDED:
            new["finished"] = now
        self.write_json("status.json", new | fields)

    def write_json(self, name: str, content: Any) -> None:
        """Replaces a small file of the run folder."""
        self._replace(name, json.dumps(content, indent=1) + "\n")

    def add_json(self, name: str, key: str, content: Any) -> None:
        """Sets one key of a small JSON object in the run folder."""
        path = self.path / name
        with _saying(f"cannot read {path}"):
            known = json.loads(path.read_text()) if path.exists() else {}
        self.write_json(name, known | {key: content})

    # metrics.jsonl

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        path = self.path / "metrics.jsonl"
        with _saying(f"cannot write {path}"), open(path, "ab+") as file:
            if file.tell() and not _ends_line(file):
                file.write(b"\n")  # a writer died inside its last line; what it wrote stays a line of its own
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()

    def metrics(self) -> list[dict[str, Any]]:
        """All records; a line cut short by a crash is passed over."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        with _saying(f"cannot read {path}"):
            lines = path.read_text(errors="replace").splitlines()
        records = []
        for line in lines:
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    records.append(record)
        return records

    def truncate_metrics(self, step: int) -> None:
        """Drops the records past `step`: training goes on from a checkpoint of that step and writes them again."""
        records = self.metrics()
        kept = [record for record in records if record.get("step", 0) <= step]
        if len(kept) < len(records):
            self._replace("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in kept))

    # results.csv

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows; a row with the setting of an older one takes its place. An absent or None cell is empty.

        Raises ValueError for a column that results do not have.
        """
        by_setting: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in [*self.rows(), *rows]:
            if unknown := row.keys() - COLUMNS.keys():
                raise ValueError(f"column {', '.join(sorted(unknown))}: allowed are {', '.join(COLUMNS)}")
            typed = {column: None if row.get(column) is None else COLUMNS[column](row[column]) for column in COLUMNS}
            by_setting[tuple(typed[column] for column in SETTING)] = typed
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(by_setting.values())
        self._replace("results.csv", text.getvalue())

    def rows(self) -> list[dict[str, Any]]:
        """The rows of results.csv, typed as `COLUMNS` says; None for an empty cell."""
        path = self.path / "results.csv"
        if not path.exists():
            return []
        with _saying(f"cannot read {path}"), open(path, newline="") as file:
            cells = list(csv.DictReader(file))
        try:
            return [{name: kind(row[name]) if row[name] else None for name, kind in COLUMNS.items()} for row in cells]
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{path} is no table of results: {error!r}") from error

    # one writer

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the run is trained. The system lets go of it when the process dies. Raises RunBusy."""
        path = self.path / ".lock"
        with _saying(f"cannot lock {path}"):
            file = open(path, "a+")  # noqa: SIM115 - held for the whole block
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise RunBusy(f"{self.path} is being trained by {file.read().strip() or 'another process'}") from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def _replace(self, name: str, content: str) -> None:
        path, beside = self.path / name, self.path / f".{name}.{os.getpid()}"
        with _saying(f"cannot write {path}"):
            try:
                with open(beside, "w", newline="") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, path)
            except BaseException:
                with suppress(OSError):
                    beside.unlink(missing_ok=True)
                raise


def attempt(task: Callable[[DictConfig], T], cfg: DictConfig) -> T:
    """task(cfg); what it raises is written into the run's status and raised again, RunError for a user's mistake."""
    try:
        return task(cfg)
    except RunBusy:
        raise
    except Exception as error:
        told = explained(error)
        with suppress(RunError):  # a full disk must not hide what happened
            words = " ".join(str(told).split())
            Run.create(cfg).set_status("failed", exception=f"{type(told.__cause__ or told).__name__}: {words}")
        if told is error:
            raise
        raise told from told.__cause__


def explained(error: Exception) -> Exception:
    """What an object's constructor refuses is a user's mistake: it comes wrapped by Hydra and leaves as RunError."""
    cause = error.__cause__
    if isinstance(error, InstantiationException) and isinstance(cause, ValueError | OSError):
        told = RunError(str(cause))
        told.__cause__ = cause
        return told
    return error


@cache
def code_version() -> str:
    """The package version, with the commit and whether files differ from it where the code is a git checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return f"{__version__}+{done.stdout.strip()}"
    return __version__


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Turns the system's refusals (full disk, no permission) into one clear message."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what}: {error.strerror or error}") from error


def _ends_line(file: io.BufferedRandom) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
