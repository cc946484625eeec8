"""What there is to show of runs that cannot be ranked, as no row has all objectives."""

from collections import defaultdict
from collections.abc import Sequence
from math import inf
from statistics import fmean

from analysis.objectives import Objective, about
from analysis.results import GROUP, Results, natural


def lacking(results: Results, objectives: Sequence[Objective]) -> list[Objective]:
    """The objectives of which no row has a number."""
    return [o for o in objectives if not any(row.has([o.name]) for row in results.rows)]


def partial_scores(results: Results, objectives: Sequence[Objective]) -> list[list[str]] | None:
    """A header, then a line a variant: means over seeds of each metric in each setting, best first by the first column.

    None where some row has all objectives, or no row has any metric.
    """
    names = [o.name for o in objectives]
    if any(row.has(names) for row in results.rows):
        return None
    gone = {o.name for o in lacking(results, objectives)}
    metrics = [metric for metric in results.shown(names) if metric not in gone]
    rows = [row for row in results.rows if any(row.has([metric]) for metric in metrics)]
    varying = [c for c in results.columns if len({row.record.get(c) for row in rows}) > 1 and c not in GROUP]
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        where = ", ".join(f"{name} {row.record[name]}" for name in varying if row.record.get(name))
        for metric in filter(row.scores.__contains__, metrics):
            found[metric, where][row.variant].append(row.scores[metric])
    if not found:
        return None
    columns = sorted(found, key=lambda column: (metrics.index(column[0]), _numbers(column[1])))
    best = found[columns[0]]
    sign = next((o.sign for o in objectives if o.name == columns[0][0]), 1)
    variants = sorted({row.variant for row in rows}, key=lambda v: (sign * fmean(best[v]) if v in best else inf, v))
    header = ["Variant", *(", ".join(filter(None, (about(metric).label, where))) for metric, where in columns)]
    return [header, *([v, *(f"{fmean(found[c][v]):.4f}" if v in found[c] else "" for c in columns)] for v in variants)]


def _numbers(text: str) -> list[tuple[int, float, str]]:
    """Sort key of settings in words."""
    return [natural(word) for word in text.replace(",", "").split()]
