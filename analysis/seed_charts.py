"""Vega-Lite charts of what several seeds tell: rank intervals, and attainment surfaces."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import altair as alt
import moocore
import numpy as np

from analysis.canvas import SHOWN, Canvas, digits

EACH = 15  # pixels of height a variant
HALF = "half of the seeds"


def intervals(canvas: Canvas) -> dict[str, Any] | None:
    """Average ranks with their intervals, the best first, and places beside them; None where no noise is known."""
    ranking = canvas.study.ranking
    places = ranking.places
    known = [e for e in ranking.ranked if e.place is not None and e.variant in canvas.first]
    if not known:
        return None
    rows = [
        {**canvas.facts(e.variant), "mean": e.rank_all, "low": e.rank_all_low, "high": e.rank_all_high,
         "place": places[e.variant], "ties": len(e.ties), "tied": e.place == 1}
        for e in known
    ]  # fmt: skip
    base = canvas.rows().transform_filter(SHOWN)
    x = alt.X("mean:Q", title="average rank (1 is best)", scale=alt.Scale(zero=False, nice=False, padding=24),
              axis=alt.Axis(tickCount=8))  # fmt: skip
    y = alt.Y("variant:N", title=None, sort=[e.variant for e in known],
              axis=alt.Axis(grid=False, labelLimit=200, minExtent=200))  # fmt: skip
    tooltip = ["variant:N", "place:N", "mean:Q", "low:Q", "high:Q", alt.Tooltip("ties:Q", title="tied with")]
    fill = alt.condition("datum.tied", alt.value(1.0), alt.value(0.0))
    drawn = alt.layer(
        base.mark_rule(strokeWidth=2, opacity=0.55).encode(x="low:Q", x2="high:Q", y=y, color=canvas.colour),
        base.mark_point(size=55, filled=False).encode(
            x=x, y=y, color=canvas.colour, fill=canvas.colour, fillOpacity=fill, tooltip=tooltip
        ),
        base.mark_text(align="left", dx=8, fontSize=10.5, color="currentColor").encode(x="high:Q", y=y, text="place:N"),
    )
    return canvas.finish(drawn, rows, 40 + EACH * len(known))


def attainment(canvas: Canvas) -> tuple[dict[str, Any], list[str]] | None:
    """What a variant's runs attain at some guidance and number of steps in the first two objectives.

    One run of a variant attains all that is no better than one of its settings in both. The surfaces bound what one,
    half and all of its runs attain (the empirical attainment function, Fonseca et al. 2011, by moocore). All settings
    of the headline's weights, rule, grid and shift take part. None below two seeds.
    """
    points = _points(canvas)
    if not points:
        return None
    first, second = canvas.study.objectives[:2]

    def told(cost: Sequence[float]) -> dict[str, float]:
        """The scores of costs."""
        pairs = zip((first, second), cost, strict=True)
        return {canvas.fields[objective.name]: digits(objective.sign * value) for objective, value in pairs}

    surfaces = {variant: _surfaces(seeds) for variant, seeds in points.items()}
    corners = [corner for of in surfaces.values() for surface in of.values() for corner in surface]
    everywhere = _worst(corners)
    rows: list[dict[str, Any]] = []
    for at, (variant, seeds) in enumerate(points.items(), 1):
        facts = canvas.facts(variant)
        own = _worst([corner for surface in surfaces[variant].values() for corner in surface])
        for by, surface in surfaces[variant].items():
            for place, worst in ((0, everywhere), (at, own)) if by == HALF else ((at, own),):
                stairs = enumerate(_stairs(surface, *worst))
                rows += [{**facts, "at": place, "by": by, **told(corner), "step": step} for step, corner in stairs]
        rows += [
            {**facts, "at": at, "by": "run", "seed": seed, **told(cost)}
            for seed, costs in seeds.items()
            for cost in costs
            if cost[0] <= own[0] and cost[1] <= own[1]
        ]
    base = canvas.rows(asks=True).transform_filter(SHOWN)
    x = alt.X(**canvas.axis(first), scale=alt.Scale(zero=False, nice=False, padding=20), axis=alt.Axis(tickCount=10))
    y = alt.Y(**canvas.axis(second), scale=alt.Scale(zero=False, nice=False, padding=12), axis=alt.Axis(tickCount=8))
    dash = alt.StrokeDash(
        "by:N",
        title="attained by",
        scale=alt.Scale(domain=["one seed", HALF, "every seed"], range=[[2, 3], [1, 0], [7, 3]]),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolSize=400),
    )
    scores = canvas.tips(first.name, second.name)
    bounds = canvas.lines(
        base.transform_filter("datum.by != 'run'"), x=x, y=y, strokeDash=dash, order="step:Q",
        tooltip=["variant:N", "by:N", *scores, "rank:Q"],
    )  # fmt: skip
    runs = base.transform_filter("datum.by == 'run'").mark_point(size=30, opacity=0.8).encode(
        x=x, y=y, color=canvas.colour, tooltip=["variant:N", "seed:N", *scores])  # fmt: skip
    return canvas.finish(alt.layer(bounds, runs), rows, 420, asks=True), [f"all variants, {HALF}", *points]


Costs = list[tuple[float, float]]  # of the first two objectives; less is better


def _points(canvas: Canvas) -> dict[str, dict[str, Costs]]:
    """Costs of the headline's settings by ranked variant and seed, the best first; empty below two seeds."""
    study = canvas.study
    if len(study.ranking.seeds) < 2:
        return {}
    label = study.label(study.settings[0], without=("steps", "guidance"))
    settings = {s for s in study.settings if study.label(s, without=("steps", "guidance")) == label}
    out: dict[str, dict[str, Costs]] = {
        entry.variant: defaultdict(list)
        for entry in study.ranking.ranked
        if entry.variant in canvas.first and not entry.diverged
    }
    first, second = study.objectives[:2]
    for row in study.results.rows:
        if row.is_ranked(o.name for o in study.objectives) and row.setting in settings and row.variant in out:
            cost = (first.sign * row.scores[first.name], second.sign * row.scores[second.name])
            out[row.variant][row.seed].append(cost)
    return out


def _surfaces(seeds: dict[str, Costs]) -> dict[str, Costs]:
    """Corners of what one, half and all of the seeds attain, by the first cost; the second falls."""
    points = np.array([cost for costs in seeds.values() for cost in costs])
    sets = np.repeat(np.arange(len(seeds)), [len(costs) for costs in seeds.values()])
    out = {}
    for by, percentile in {"one seed": 100 / len(seeds), HALF: 50.0, "every seed": 100.0}.items():
        found = moocore.eaf(points, sets, percentiles=[percentile])
        out[by] = [(x, y) for x, y, _ in found[np.argsort(found[:, 0])]]
    return out


def _worst(corners: Costs) -> tuple[float, float]:
    """The costs at which drawn surfaces end: a tenth of their extent outside their corners."""
    x, y = np.array(corners).T
    return x.max() + 0.1 * np.ptp(x), y.max() + 0.1 * np.ptp(y)


def _stairs(corners: Costs, worst_x: float, worst_y: float) -> Costs:
    """The bound of what is attained, from the worst second cost to the worst first one."""
    path, y = [], worst_y
    for x, better in corners:
        path += [(x, y), (x, better)]
        y = better
    return [*path, (worst_x, y)]
