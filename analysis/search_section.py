"""A search on the page: its Pareto front, how the hypervolume grew, and each score against each parameter."""

from collections.abc import Mapping
from html import escape
from typing import Any

import altair as alt

from analysis.canvas import CONFIG, digits, log_if_wide
from analysis.markup import figure, table
from analysis.searches import Search

FID, CLIP = "FID (lower is better)", "CLIP score (higher is better)"
ON_FRONT = alt.condition("datum.front", alt.value(1.0), alt.value(0.35))


def search_section(search: Search, id: str) -> str:
    """The section of one search."""
    parts = [f'<section id="{id}"><h2>{escape(search.title)}</h2><p>{escape(search.counts())}.</p>']
    if search.scored:
        parts += [
            "<h3>Pareto front</h3>" + table(search.table()),
            figure(
                id, "CLIP score against FID", "The line joins the front. Darker points are later trials.",
                [("front", _front(search)), ("history", _history(search))],
            ),
            figure(
                id, "Scores against parameters", "Strong points are on the front.",
                [(f"{score}-{i}", _against(search, name, score, title))
                 for i, name in enumerate(search.parameters) for score, title in (("fid", FID), ("clip", CLIP))],
            ),
        ]  # fmt: skip
    return "".join(parts) + "</section>"


def _rows(search: Search) -> list[dict[str, Any]]:
    """Parameters by their place: a dot in a field's name would mean something else."""
    best = {trial.number for trial in search.front}
    return [
        {
            "trial": t.number,
            "fid": digits(t.scores[0]),
            "clip": digits(t.scores[1]),
            "front": t.number in best,
            **{f"p{i}": digits(t.parameters[name]) for i, name in enumerate(search.parameters)},
        }
        for t in search.scored
        if t.scores
    ]


def _tooltip(search: Search) -> list[Any]:
    named = [alt.Tooltip(f"p{i}:Q", title=name.replace(".", " ")) for i, name in enumerate(search.parameters)]
    return ["trial:Q", *named, "fid:Q", "clip:Q"]


def _front(search: Search) -> dict[str, Any]:
    base = alt.Chart(alt.Data(values=_rows(search)))
    x = alt.X("fid:Q", title=FID, scale=alt.Scale(zero=False, nice=True, padding=12))
    y = alt.Y("clip:Q", title=CLIP, scale=alt.Scale(zero=False, nice=True, padding=12))
    line = base.transform_filter("datum.front").mark_line(strokeWidth=1.2, color="currentColor", opacity=0.75)
    points = base.mark_circle(size=70, opacity=0.9).encode(
        x=x, y=y, color=alt.Color("trial:Q", scale=alt.Scale(scheme="blues"), legend=None), tooltip=_tooltip(search)
    )
    return _finished(alt.layer(line.encode(x=x, y=y, order="fid:Q"), points))


def _history(search: Search) -> dict[str, Any]:
    values = [{"trial": trial, "volume": digits(share)} for trial, share in search.history()]
    chart = alt.Chart(alt.Data(values=values)).mark_line(interpolate="step-after", color="currentColor")
    y = alt.Y("volume:Q", title="hypervolume, share of the last", scale=alt.Scale(zero=False))
    return _finished(chart.encode(x=alt.X("trial:Q", title="trial"), y=y, tooltip=["trial:Q", "volume:Q"]))


def _against(search: Search, name: str, score: str, title: str) -> dict[str, Any]:
    rows, field = _rows(search), f"p{list(search.parameters).index(name)}"
    kind = log_if_wide([row[field] for row in rows])
    points = alt.Chart(alt.Data(values=rows)).mark_circle(size=60, color="currentColor")
    x = alt.X(f"{field}:Q", title=name, scale=alt.Scale(type=kind, zero=False, nice=False, padding=10))
    y = alt.Y(f"{score}:Q", title=title, scale=alt.Scale(zero=False, nice=True))
    return _finished(points.encode(x=x, y=y, opacity=ON_FRONT, tooltip=_tooltip(search)))


def _finished(chart: Any) -> dict[str, Any]:
    """With the parameters that the page's filters set, which a search has no use for."""
    filters = [alt.param(name="families", value=[]), alt.param(name="needle", value="")]
    made: Mapping[str, Any] = (
        chart.add_params(*filters).properties(width="container", height=300).configure(**CONFIG).to_dict()
    )
    return dict(made)
