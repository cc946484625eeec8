"""A search on the page: its Pareto front, how the hypervolume grew, and each score against each parameter."""

from collections.abc import Mapping
from html import escape
from typing import Any

import altair as alt

from analysis.canvas import CONFIG, digits, log_if_wide
from analysis.markup import Figures, table
from analysis.objectives import listed
from analysis.searches import Search

ON_FRONT = alt.condition("datum.front", alt.value(1.0), alt.value(0.35))


def search_section(search: Search, id: str, figures: Figures) -> str:
    """The section of one search."""
    parts = [f'<section id="{id}"><h2>{escape(search.title)}</h2><p>{escape(search.counts())}.</p>']
    if search.scored:
        first, *others = search.objectives
        joined = "The line joins the front. " if len(others) == 1 else "Ringed points are on the front. "
        title = f"{listed(o.label for o in others)} against {first.label}"
        parts += [
            "<h3>Pareto front</h3>" + table(search.table()),
            figures.draw(
                id, title, f"{joined}Darker points are later trials.",
                [*((f"front-{i}", _front(search, 0, i)) for i in range(1, len(others) + 1)),
                 ("history", _history(search))],
            ),
            figures.draw(
                id, "Scores against parameters", "Strong points are on the front.",
                [(f"m{m}-p{p}", _against(search, p, m))
                 for p in range(len(search.parameters)) for m in range(len(search.objectives))],
            ),
        ]  # fmt: skip
    return "".join(parts) + "</section>"


def _rows(search: Search) -> list[dict[str, Any]]:
    """Objectives and parameters by their place: a dot in a field's name would mean something else."""
    best = {trial.number for trial in search.front}
    return [
        {
            "trial": t.number,
            **{f"m{i}": digits(score) for i, score in enumerate(t.scores)},
            "front": t.number in best,
            **{f"p{i}": digits(t.parameters[name]) for i, name in enumerate(search.parameters)},
        }
        for t in search.scored
    ]


def _tooltip(search: Search) -> list[Any]:
    named = [alt.Tooltip(f"p{i}:Q", title=name.replace(".", " ")) for i, name in enumerate(search.parameters)]
    scores = [alt.Tooltip(f"m{i}:Q", title=objective.label) for i, objective in enumerate(search.objectives)]
    return ["trial:Q", *named, *scores]


def _front(search: Search, first: int, second: int) -> dict[str, Any]:
    """Two objectives. With more of them a line through the front would cross itself."""
    base = alt.Chart(alt.Data(values=_rows(search)))
    padded = alt.Scale(zero=False, nice=True, padding=12)
    x = alt.X(f"m{first}:Q", title=search.objectives[first].title, scale=padded)
    y = alt.Y(f"m{second}:Q", title=search.objectives[second].title, scale=padded)
    line = base.transform_filter("datum.front").mark_line(strokeWidth=1.2, color="currentColor", opacity=0.75)
    points = base.mark_circle(size=70, opacity=0.9).encode(
        x=x, y=y, color=alt.Color("trial:Q", scale=alt.Scale(scheme="blues"), legend=None), tooltip=_tooltip(search)
    )
    if len(search.objectives) > 2:
        rings = base.transform_filter("datum.front").mark_point(size=110, color="currentColor").encode(x=x, y=y)
        return _finished(alt.layer(points, rings))
    return _finished(alt.layer(line.encode(x=x, y=y, order=f"m{first}:Q"), points))


def _history(search: Search) -> dict[str, Any]:
    values = [{"trial": trial, "volume": digits(share)} for trial, share in search.history()]
    chart = alt.Chart(alt.Data(values=values)).mark_line(interpolate="step-after", color="currentColor")
    y = alt.Y("volume:Q", title="hypervolume, share of the last", scale=alt.Scale(zero=False))
    return _finished(chart.encode(x=alt.X("trial:Q", title="trial"), y=y, tooltip=["trial:Q", "volume:Q"]))


def _against(search: Search, parameter: int, score: int) -> dict[str, Any]:
    rows, field = _rows(search), f"p{parameter}"
    kind = log_if_wide([row[field] for row in rows])
    points = alt.Chart(alt.Data(values=rows)).mark_circle(size=60, color="currentColor")
    x = alt.X(f"{field}:Q", title=search.parameters[parameter],
              scale=alt.Scale(type=kind, zero=False, nice=False, padding=10))  # fmt: skip
    y = alt.Y(f"m{score}:Q", title=search.objectives[score].title, scale=alt.Scale(zero=False, nice=True))
    return _finished(points.encode(x=x, y=y, opacity=ON_FRONT, tooltip=_tooltip(search)))


def _finished(chart: Any) -> dict[str, Any]:
    """With the parameters that the page's filters set, which a search has no use for."""
    filters = [alt.param(name="families", value=[]), alt.param(name="needle", value="")]
    made: Mapping[str, Any] = (
        chart.add_params(*filters).properties(width="container", height=300).configure(**CONFIG).to_dict()
    )
    return dict(made)
