"""The run folder is the database: config.yaml, status.json, metrics.jsonl, results.csv. Nothing else keeps state."""

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

from omegaconf import DictConfig, OmegaConf

from flowzoo import __version__
from flowzoo.runs.files import Refused, RunError, create, explained, read_bytes, regular, replace, saying
from flowzoo.runs.identity import Config, run_folder, run_variant
from flowzoo.runs.layout import (
    CONFIG,
    DATA,
    ENDED,
    FINISHED,
    METRICS,
    RESULTS,
    STATES,
    STATUS,
    absolute,
    place_of,
)
from flowzoo.runs.lock import RunLock
from flowzoo.runs.reading import parse_metrics, parse_status
from flowzoo.runs.rows import as_text, merged, parse_rows, typed
from flowzoo.runs.signals import shielded

T = TypeVar("T")


class RunBusy(RunError):
    """Another process trains this run."""


class Unfit(RunError):
    """This machine cannot do what a run asks for. It is told before the run begins, and nothing is written of it."""


class Diverged(RunError):
    """The loss, or the norm of its gradient, was not finite."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved itself; the same command goes on.

    A KeyboardInterrupt, so that no `except Exception` on the way takes it for one failed job among others.
    """


class Run:
    """One run folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._held: RunLock | None = None

    @classmethod
    def create(cls, cfg: DictConfig) -> Self:
        """The run of `cfg`, its folder made. Raises RunError.

        A new one gets its config and is queued. One that is there is left as it is: somebody may be training it, or
        have trained it since we looked.
        """
        run = cls(run_folder(cfg))
        run.make(cfg, run_variant(cfg))
        return run

    def make(self, config: Config | None, variant: str) -> None:
        """As `create`, where the folder is known; a run without a config is one that a script made."""
        with saying(f"cannot create the run folder {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
        if config is not None and not (self.path / CONFIG).exists():
            create(self.path / CONFIG, _text_of(config))
        if self.state is None:
            create(self.path / STATUS, _json(_status({}, "queued", variant=variant)))

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """An existing run folder. Raises RunError for a folder that is none."""
        run = cls(path)
        if not run.path.is_dir():
            raise RunError(f"there is no folder {run.path}")
        if not (run.path / CONFIG).is_file():
            raise RunError(f"{run.path} is no run folder: it has no config.yaml (allowed: runs/<sweep>/<run>)")
        return run

    @property
    def config(self) -> DictConfig:
        """config.yaml, with `runs` and `sweep` as the folder lies now. Raises RunError."""
        try:
            with open(self.path / CONFIG, encoding="utf-8", opener=regular) as file:
                cfg = OmegaConf.load(file)
        except Exception as error:  # OSError, or any of the YAML reader's own errors
            raise RunError(f"cannot read {self.path / CONFIG}: {error}") from error
        if not isinstance(cfg, DictConfig):
            raise RunError(f"{self.path / CONFIG} holds no config")
        cfg.update(place_of(absolute(self.path).parent))
        OmegaConf.set_struct(cfg, True)
        return cfg

    def set_config(self, config: Config) -> None:
        """Replaces config.yaml, resolved: for who holds the lock. A finished run's says how its rows came about."""
        self._replace(CONFIG, _text_of(config))

    # status.json

    @property
    def status(self) -> dict[str, Any]:
        """The content of status.json; empty where there is none yet."""
        path = self.path / STATUS
        try:
            return parse_status(read_bytes(path).decode())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {path}: {error}") from error

    @property
    def state(self) -> str | None:
        return self.status.get("state")

    @property
    def is_finished(self) -> bool:
        """A status that cannot be read does not say so: one such run must not keep others from being trained."""
        with suppress(RunError):
            return self.state in FINISHED
        return False

    def is_over(self, halved: bool) -> bool:
        """Whether nothing is left to train or to score. A run that was stopped at a rung goes on without halving."""
        return self.state in FINISHED or (self.state == "stopped" and halved)

    @property
    def told_over(self) -> str:
        """What is said where that is so."""
        instead = " (flowzoo.evaluate scores it with other solvers and settings)" if self.state == "done" else ""
        return f"{self.path} is {self.state} already; nothing to do{instead}"

    def set_status(self, state: str, **fields: Any) -> None:
        """Replaces status.json, keeping what earlier calls wrote. Each process that starts it is one attempt.

        One that cannot be read is lost already; the new one takes its place.
        """
        old: dict[str, Any] = {}
        with suppress(RunError):
            old = self.status
        self.write_json(STATUS, _status(old, state, **fields))

    def set_failed(self, error: Exception, **fields: Any) -> None:
        """Says in status.json what was raised: in one line, by the class of its cause where it has one."""
        words = f"{type(error.__cause__ or error).__name__}: {' '.join(str(error).split())}"
        self.set_status("failed", exception=words, **fields)

    def write_json(self, name: str, content: Any) -> None:
        """Replaces a small file of the run folder."""
        self._replace(name, _json(content))

    def add_json(self, name: str, key: str, content: Any) -> None:
        """Sets one key of a small JSON object in the run folder."""
        path = self.path / name
        with saying(f"cannot read {path}"):
            known = json.loads(read_bytes(path)) if path.exists() else {}
        self.write_json(name, known | {key: content})

    # metrics.jsonl

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        path = self.path / METRICS
        self.check_lock()
        with saying(f"cannot write {path}"), open(path, "ab+") as file:
            if file.tell() and not _ends_line(file):
                file.write(b"\n")  # a writer died inside its last line; what it wrote stays a line of its own
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()

    def metrics(self) -> list[dict[str, Any]]:
        """All records; a line cut short by a crash is passed over."""
        path = self.path / METRICS
        if not path.exists():
            return []
        with saying(f"cannot read {path}"):
            return list(parse_metrics(read_bytes(path)))

    def truncate_metrics(self, step: int) -> None:
        """Drops the records past `step`: training goes on from a checkpoint of that step and writes them again."""
        records = self.metrics()
        kept = [record for record in records if record["step"] <= step]
        if len(kept) < len(records):
            self._replace(METRICS, "".join(json.dumps(record) + "\n" for record in kept))

    # results.csv

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows; a row with the setting of an older one takes its place. An absent or None cell is empty.

        A metric that no older row has is another column, empty in older rows. Raises ValueError as `rows.merged`.
        """
        self._replace(RESULTS, as_text(merged([*self.rows(), *rows])))

    def rows(self) -> list[dict[str, Any]]:
        """The rows of results.csv, typed as `rows.typed` says; None for an empty cell."""
        path = self.path / RESULTS
        if not path.exists():
            return []
        with saying(f"cannot read {path}"):
            content = read_bytes(path)
        try:
            cells, wrong = parse_rows(content.decode())
            if not wrong:
                return typed(cells)
        except (KeyError, ValueError) as error:
            wrong = repr(error)
        raise RunError(f"{path} is no table of results: {wrong}")

    # one writer

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the run is trained; a dead owner's is taken over (flowzoo/runs/lock.py). Raises RunBusy.

        Where another process took it over from us, who were suspended, all that would write here raises RunBusy.
        """
        lock = RunLock(self.path)
        with saying(f"cannot lock {self.path}"):
            other = lock.acquire()
        if other:
            raise RunBusy(f"{self.path} is being trained by {other}")
        self._held = lock
        try:
            yield
        finally:
            self._held = None
            with saying(f"cannot unlock {self.path}"):
                lock.release()

    def check_lock(self) -> None:
        """Raises RunBusy where the lock was ours and is no more. Before everything that is written here."""
        with saying(f"cannot read the lock of {self.path}"):
            lost = self._held is not None and not self._held.is_ours()
        if lost:
            raise RunBusy(f"{self.path}: another process took this run over; this one writes nothing more")

    def _replace(self, name: str, content: str) -> None:
        self.check_lock()
        replace(self.path / name, content)


def resolved(config: Config) -> dict[str, Any]:
    """A config as plain values. What is missing raises OmegaConf's errors."""
    if not isinstance(config, DictConfig):
        return dict(config)
    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return values


def _text_of(config: Config) -> str:
    return OmegaConf.to_yaml(resolved(config))


def _json(content: Any) -> str:
    return json.dumps(content, indent=1) + "\n"


def _status(old: Mapping[str, Any], state: str, **fields: Any) -> dict[str, Any]:
    """What status.json says after `old`."""
    if state not in STATES:
        raise ValueError(f"state {state!r}: allowed are {', '.join(STATES)}")
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new: dict[str, Any] = {"attempt": 0, "exception": None, "started": None, "finished": None}
    new |= {**old, "state": state, "updated": now}
    goes_on = old.get("state") == "running" and all(old.get(key) == value for key, value in here.items())
    if state == "running" and not goes_on:
        new |= {"attempt": new["attempt"] + 1, "started": now, "finished": None, "exception": None}
        new |= {"code_version": code_version(), **here}
    if state in ENDED:
        new["finished"] = now
    return new | fields


@shielded
def attempt(task: Callable[[DictConfig], T], cfg: DictConfig) -> T:
    """task(cfg); what it raises is written into the run's status and raised again, RunError for a user's mistake."""
    try:
        return task(cfg)
    except (RunBusy, Unfit):
        raise
    except Exception as error:
        told = explained(error)
        with suppress(RunError):  # a full disk must not hide what happened, and another process may train it by now
            record_failure(cfg, told)
        if told is error:
            raise
        raise told from told.__cause__


def record_failure(cfg: DictConfig, told: Exception) -> bool:
    """Writes what `explained` says into the run's status; False where it is finished. Raises RunError, as RunBusy.

    Of a run that was refused before it began nothing is written.
    """
    run = Run(run_folder(cfg))
    if isinstance(told, Refused) and not run.path.exists():
        return True
    with saying(f"cannot create the run folder {run.path}"):
        run.path.mkdir(parents=True, exist_ok=True)
    with run.lock():
        with suppress(RunError):  # a broken status may be what failed
            if run.state in FINISHED:
                return False
        if not (run.path / CONFIG).exists():
            run.set_config(cfg)
        run.set_failed(told, variant=run_variant(cfg))
    return True


def data_of(folder: Path) -> str | None:
    """The fingerprint of the images that a run was trained on; None where it was not yet. Raises RunError."""
    return _data(folder, "fingerprint")


def latents_known(folder: Path) -> str | None:
    """The fingerprint of the latents that a run has begun with; None where it has not yet. Raises RunError."""
    return _data(folder, "latents")


def _data(folder: Path, key: str) -> str | None:
    path = folder / DATA
    try:
        return str(json.loads(read_bytes(path))[key])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"cannot read {path}: {error!r}; allowed: remove the run's folder and train it anew") from error


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


def _ends_line(file: io.BufferedRandom) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
