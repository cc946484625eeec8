"""What the charts of a study share: colours, the page's filters, where data stand. Text takes the page's colour."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt
import numpy as np

from analysis.objectives import Objective, about
from analysis.ranking import Score
from analysis.study import Study
from flowzoo.formulation.names import family
from flowzoo.runs.reading import RunFolder

POINTS = 100  # of a curve: more cannot be seen
MOST = 64  # variants with a curve or a picture: more cannot be told apart
SHOWN = "indexof(families, datum.family) >= 0 && indexof(lower(datum.variant), needle) >= 0"
ROWS = "rows"
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "inherit",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "gridColor": "currentColor", "gridOpacity": 0.1,
        "domain": False, "ticks": False, "labelPadding": 6, "titleFontWeight": 500, "titleFontSize": 12,
        "labelFontSize": 11, "titlePadding": 10, "labelFlush": False, "labelOverlap": True, "labelSeparation": 4,
    },
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor", "symbolStrokeColor": "currentColor"},
}  # fmt: skip


class Canvas:
    """Colours of the families, and the page's two filters, the parameters `families` and `needle`."""

    def __init__(self, study: Study, colours: Mapping[str, str]) -> None:
        self.study = study
        # by place: a metric may be called as another field is
        self.fields = {name: f"m{i}" for i, name in enumerate(study.ranking.metrics)}
        self.colour = alt.Color(
            "family:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=None
        )
        self.families = alt.param(name="families", value=list(colours))
        self.needle = alt.param(name="needle", value="")
        self.rank = {e.variant: round(e.rank_all, 2) for e in study.ranking.ranked if e.rank_all is not None}
        self.first = {entry.variant for entry in study.ranking.entries[:MOST]}
        self.seeds = {s: max(x.n for x in of.values()) for s, of in study.ranking.scores.items()}
        lead: dict[str, str] = {}
        for entry in study.ranking.ranked:
            lead.setdefault(family(entry.variant), entry.variant)
        self.leads = set(lead.values())

    def facts(self, variant: str) -> dict[str, Any]:
        """What every row of data says of its variant; one that has no rank has no such key."""
        facts = {"variant": variant, "family": family(variant), "lead": variant in self.leads}
        return facts | ({"rank": self.rank[variant]} if variant in self.rank else {})

    def axis(self, objective: Objective) -> dict[str, Any]:
        """Field and title of an axis."""
        return {"shorthand": f"{self.fields[objective.name]}:Q", "title": objective.title}

    def tips(self, *metrics: str) -> list[alt.Tooltip]:
        """What the pointer is told of these metrics, of all by default."""
        return [alt.Tooltip(f"{self.fields[name]}:Q", title=about(name).label) for name in metrics or self.fields]

    def errors(self, score: Score, *metrics: str) -> dict[str, float]:
        """A score's metrics, of all by default, with a standard error to both sides; without errors, the mean alone."""
        out: dict[str, float] = {}
        for name in metrics or self.fields:
            field, mean, se = self.fields[name], score.mean.get(name), score.se.get(name)
            if mean is not None:
                out[field] = digits(mean)
            if mean is not None and se is not None:
                out |= {
                    f"{field}_se": digits(se),
                    f"{field}_low": digits(mean - se),
                    f"{field}_high": digits(mean + se),
                }
        return out

    def is_whole(self, variant: str, setting: tuple[str, ...]) -> bool:
        """Whether it has a rank, and its scores there are means over all seeds."""
        scores = self.study.ranking.scores[setting]
        return variant in self.rank and scores[variant].n == self.seeds[setting]

    def rows(self, asks: bool = False) -> alt.Chart:
        """A chart of the rows that `finish` gets; with `asks`, of those whose `at` is the page's choice."""
        chart = alt.Chart(alt.NamedData(ROWS))
        return chart.transform_filter("datum.at == at") if asks else chart

    def finish(self, chart: Any, rows: Sequence[Mapping[str, Any]], height: int, asks: bool = False) -> dict[str, Any]:
        """The specification, with the page's filters as parameters."""
        params = [self.families, self.needle, *([alt.param(name="at", value=0)] if asks else [])]
        return specification(chart, rows, height, params)

    def lines(self, base: Any, point: bool = False, **encoding: Any) -> Any:
        """One line a variant: the best of each family stands out, and so does what the pointer is on."""
        hovered = alt.selection_point(
            name="hovered", on="pointerover", clear="pointerout", fields=["variant"], nearest=False, empty=False
        )
        emphasis = [{"param": "hovered", "empty": False, "value": 1.0}, {"test": "datum.lead", "value": 0.95}]
        width = [{"param": "hovered", "empty": False, "value": 3.5}, {"test": "datum.lead", "value": 2.2}]
        mark = base.mark_line(clip=True, interpolate="linear", point={"size": 34, "filled": True} if point else False)
        return mark.encode(
            color=self.colour,
            detail="variant:N",
            opacity={"condition": emphasis, "value": 0.4},
            strokeWidth={"condition": width, "value": 1.0},
            **encoding,
        ).add_params(hovered)

    def one_run_a_variant(self) -> list[RunFolder]:
        """Of the variants that have curves, the best first: each one's first seed that has scores."""
        first: dict[str, RunFolder] = {}
        for run in sorted(self.study.runs, key=lambda r: (not r.rows, r.seed)):
            if run.variant in self.first:
                first.setdefault(run.variant, run)
        return sorted(first.values(), key=lambda run: self.rank.get(run.variant, np.inf))


def specification(chart: Any, rows: Sequence[Mapping[str, Any]], height: int, params: Sequence[Any]) -> dict[str, Any]:
    """A chart of `ROWS` with its parameters. Rows join it last: Altair would walk through each, which takes seconds.

    It is not compared with Vega-Lite's schema, which takes as long as all the rest; the tests do that.
    """
    whole = chart.add_params(*params).properties(width="container", height=height)
    return whole.configure(**CONFIG).to_dict(validate=False) | {"datasets": {ROWS: list(rows)}}


def thin(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """At most `POINTS` points: means of equal stretches of the curve."""
    parts = np.array_split(np.asarray(pairs, dtype=float), min(POINTS, len(pairs)))
    return [digits(p[:, 0].mean()) for p in parts], [digits(p[:, 1].mean()) for p in parts]


def digits(value: float) -> float:
    """Five significant digits: enough for a chart, small on the page."""
    return float(f"{value:.5g}")


def is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def scaled(values: Sequence[float], **scale: Any) -> dict[str, Any]:
    """Scale and ticks of an axis of these values.

    Three digits tell the ticks of a log axis apart; those of a linear one need as many as Vega finds that they need.
    """
    kind = log_if_wide(values)
    ticks = alt.Axis(tickCount=6, format=".3~g") if kind == "log" else alt.Axis(tickCount=6)
    return {"scale": alt.Scale(type=kind, zero=False, nice=False, **scale), "axis": ticks}


def log_if_wide(values: Sequence[float]) -> Literal["log", "linear"]:
    """A log axis where values span more than a factor of four."""
    return "log" if values and min(values) > 0 and max(values) > 4 * min(values) else "linear"
