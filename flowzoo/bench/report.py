"""Measurements as JSON lines: what was measured, on what, how often, and how much the repeats differ."""

import json
import platform
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn, TextIO

from flowzoo.runs.refusal import one_line
from flowzoo.runs.store import code_version

LEFT_OUT = ("command",)


class Report:
    """Writes one line a measurement, each with the whole configuration and where it was taken."""

    def __init__(self, bench: str, config: Mapping[str, Any], out: TextIO) -> None:
        self.bench, self.out = bench, out
        self.config = {key: value for key, value in config.items() if key not in LEFT_OUT}
        self.failed = self.stopped = False
        self.about: dict[str, Any] = {}  # of the machine; filled in by those that use torch

    def stop(self, *_: object) -> NoReturn:
        """What Ctrl-C calls. Inside a destructor Python passes over what is raised: the next line raises it again."""
        self.stopped = True
        raise KeyboardInterrupt

    def line(self, **fields: Any) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        told = {"bench": self.bench, **fields, "config": self.config, **(self.about or machine())}
        print(json.dumps(told), file=self.out, flush=True)

    def skipped(self, peer: str, why: str) -> None:
        self.line(peer=peer, skipped=why)

    @contextmanager
    def measuring(self, **what: Any) -> Iterator[None]:
        """One measurement that fails, for want of memory perhaps, is a line with its error; the others go on."""
        print(f"measuring {', '.join(map(str, what.values()))} ...", file=sys.stderr, flush=True)
        try:
            yield
        except Exception as error:
            self.failed = True
            self.line(**what, error=f"{type(error).__name__}: {one_line(error)[:500]}")


def machine() -> dict[str, Any]:
    """Where and when, without torch."""
    return {
        "flowzoo": code_version(),
        "python": platform.python_version(),
        "torch": version_of("torch"),
        "cpu": cpu_model(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def version_of(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def spread(seconds: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """Median, extremes and interquartile range in ms, of at least one repeat."""
    ms = [1000 * s for s in seconds]
    quarters = statistics.quantiles(ms, n=4, method="inclusive") if len(ms) > 1 else [ms[0]] * 3
    numbers = {"ms": statistics.median(ms), "ms_min": min(ms), "ms_max": max(ms), "ms_iqr": quarters[2] - quarters[0]}
    return {**{key: round(value, digits) for key, value in numbers.items()}, "repeats": len(ms)}
