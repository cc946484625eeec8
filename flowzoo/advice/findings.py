"""What the study found: a line of findings.jsonl for each representation, whose predicted law its runs can test."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("findings.jsonl")
VERDICTS = ("fits", "contradicts", "open")  # what its runs say of the rule


@dataclass(frozen=True)
class Ranked:
    """A formulation with its average front and, over seeds, its 95 % interval; None where it is not known."""

    name: str
    rank: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Finding:
    """A representation: its predicted law of ln sigma, and the formulations that ranked best on it, the best first."""

    data: str
    size: tuple[int, int]  # (H, W), pixels
    autoencoder: str  # as runs/identity.py labels it
    mean: float  # of the predicted ln sigma
    deviation: float
    largest: tuple[float, ...]  # eigenvalues
    best: tuple[Ranked, ...]
    ranked: int  # formulations
    seeds: int
    training: str
    verdict: str
    note: str
    source: str  # where its rows are committed; `pilot` where they are not

    def distance(self, mean: float, deviation: float) -> float:
        """Wasserstein's of order 2 between normal laws of ln sigma with these moments."""
        return math.hypot(self.mean - mean, self.deviation - deviation)


def findings(file: Path = FILE) -> list[Finding]:
    """All lines of the file. Raises ValueError, naming the line, for one that says no finding."""
    found = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            found.append(_read(json.loads(line)))
        except (TypeError, ValueError, LookupError) as error:
            raise ValueError(f"{file}:{number}: {error}") from error
    return found


def _read(told: dict[str, Any]) -> Finding:
    best = tuple(Ranked(one["name"], one.get("rank"), _pair(one.get("interval"))) for one in told.pop("best"))
    size, largest = tuple(told.pop("size")), tuple(told.pop("largest"))
    if told["verdict"] not in VERDICTS:
        raise ValueError(f"verdict={told['verdict']}: allowed are {', '.join(VERDICTS)}")
    return Finding(best=best, size=size, largest=largest, **told)


def _pair(interval: Any) -> tuple[float, float] | None:
    return None if interval is None else (float(interval[0]), float(interval[1]))


def similar(mean: float, deviation: float, found: list[Finding]) -> list[Finding]:
    """The nearest predicted law first."""
    return sorted(found, key=lambda one: one.distance(mean, deviation))


def standing(found: list[Finding]) -> str:
    """How the rule stands, in words."""
    count = {verdict: sum(one.verdict == verdict for one in found) for verdict in VERDICTS}
    return (
        f"The rule is a hypothesis and not confirmed. Of {len(found)} representations with runs it fits "
        f"{count['fits']}, {count['contradicts']} contradict{'s' if count['contradicts'] == 1 else ''} it, and "
        f"{count['open']} leave{'s' if count['open'] == 1 else ''} it open."
    )
