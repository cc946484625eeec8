"""The metrics that variants are ranked by, `--objectives fid:min,clip:max`, and what is known of them by name."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from analysis.results import Results
from flowzoo.runs.layout import DIRECTIONS, OBJECTIVES
from flowzoo.runs.reading import RunFolder


class About(NamedTuple):
    """What the analysis says of a metric; one that it does not know has its name alone."""

    label: str
    what: str = ""  # what the number is
    noise: str = ""  # how much of it is noise, with one seed
    samples: int = 0  # fewer samples than so many times the features' dimension bias it


KNOWN = {
    "fid": About(
        "FID",
        "between feature laws",
        "FID gaps of about 1.3 % are noise of sampling alone, and a training seed moves FID about three times as much",
        samples=10,
    ),
    "fid_decoded": About(
        "FID to decoded images",
        "between feature laws of samples and of held-out images encoded and decoded",
    ),
    "clip": About("CLIP score", "as mean raw cosine"),
}


def about(name: str) -> About:
    return KNOWN.get(name, About(name))


@dataclass(frozen=True)
class Objective:
    """A metric, and whether less of it is better (min) or more (max)."""

    name: str
    direction: str

    @property
    def sign(self) -> int:
        """The metric times this is a cost: less is better."""
        return 1 if self.direction == "min" else -1

    @property
    def label(self) -> str:
        return about(self.name).label

    @property
    def title(self) -> str:
        """Of an axis."""
        return f"{self.label} ({'lower' if self.direction == 'min' else 'higher'} is better)"

    @property
    def said(self) -> str:
        return f"{self.label} ({'down' if self.direction == 'min' else 'up'})"


DEFAULT = tuple(Objective(name, direction) for name, direction in OBJECTIVES.items())


def listed(texts: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *others, end = texts
    return f"{', '.join(others)} {last} {end}" if others else end


def chosen(text: str | None, results: Results, runs: Iterable[RunFolder] = ()) -> tuple[Objective, ...]:
    """What `--objectives TEXT` asks for; the default where it was not given.

    A direction may be left out of `fid:min,clip:max` where the extractor.json of the runs say which it is, or where it
    is that of a default objective.

    Raises:
        ValueError: fewer than two metrics, a repeated one, one that the rows do not have, an unknown direction.
    """
    if text is None:
        return DEFAULT
    asked = [[word.strip() for word in part.partition(":")] for part in text.split(",")]
    names = [name for name, _, _ in asked]

    def refused(problem: str, allowed: str) -> ValueError:
        return ValueError(f"--objectives {text}: {problem}; allowed: {allowed}")

    results.check_numbers(names)
    for name, colon, direction in asked:
        if name not in results.metrics:
            raise refused(f"the rows have no metric {name!r}", ", ".join(results.metrics) or "rows with metrics")
        if colon and direction not in DIRECTIONS:
            raise refused(f"{direction!r} is no direction of {name}", listed(DIRECTIONS, "or"))
    if repeated := [name for name in names if names.count(name) > 1]:
        raise refused(f"{repeated[0]} stands there twice", "each metric once")
    if len(names) < 2:
        raise refused("one objective alone has no fronts", f"two or more of {', '.join(results.metrics)}")
    known = dict(OBJECTIVES) if all(colon for _, colon, _ in asked) else OBJECTIVES | directions(runs)
    for name, colon, _ in asked:
        if not colon and name not in known:
            raise refused(f"which way {name} is better is not known", f"{name}:min or {name}:max")
    return tuple(Objective(name, direction or known[name]) for name, _, direction in asked)


def directions(runs: Iterable[RunFolder]) -> dict[str, str]:
    """Directions of metrics by the extractor.json of these runs, as far as they agree."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for protocol in run.extractor.values():
            metrics = protocol.get("metrics") if isinstance(protocol, dict) else None
            for name, direction in metrics.items() if isinstance(metrics, dict) else ():
                found.setdefault(name, set()).add(str(direction))
    return {name: both.pop() for name, both in found.items() if len(both) == 1 and both <= set(DIRECTIONS)}
