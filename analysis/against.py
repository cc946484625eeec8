"""Scores against a swept key: what is drawn of each variant, representation and whatever else differs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt

from analysis.best import Best, best
from analysis.canvas import SHOWN, digits, log_if_wide, scaled, specification
from analysis.judges import alike
from analysis.objectives import Objective, about, directions
from analysis.ranking import Score
from analysis.results import Results, apart, natural
from analysis.swept import Contender, contenders, swept_keys
from analysis.words import telling
from flowzoo.formulation.names import family
from flowzoo.runs.layout import OBJECTIVES
from flowzoo.runs.reading import RunFolder

WHERE = ("dataset", "protocol", "data")  # of which scores must agree to stand in one chart
TELLING = ("variant", "representation", "backbone", "training", "sweep")  # what names a line, no more than needed
MOST_LINES = 40
LETTER, EACH = 6.2, 14  # pixels of width a letter of a name, and of height a line
MOST_SETTINGS = 8  # that can be asked for beside their mean
COLOURS = ("#2f80d8", "#e07b2f", "#1fa37a", "#cf5b9b", "#8f6fd1", "#b3982a", "#d9484b", "#1ba5bd", "#a8745a", "#7b8a99")


@dataclass(frozen=True)
class Part:
    """Runs that rank together: each variant at several values of the key."""

    cells: Mapping[str, str]
    best: Best

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.cells.get(column, "") for column in TELLING)))

    @property
    def tells(self) -> bool:
        """Whether there are several variants to choose values for."""
        return len(self.best.chosen) > 1


@dataclass(frozen=True)
class Against:
    """A key, and all whose scores may stand against it in one chart.

    Args:
        key: of the config.
        where: what all parts share, in words.
        parts: by representation, backbone, training and sweep.
        known: directions of metrics.
    """

    key: str
    where: str
    parts: Sequence[Part]
    known: Mapping[str, str]

    @property
    def is_numeric(self) -> bool:
        values = [c.values[0] for part in self.parts for c in part.best.contenders.values() if c.values[0]]
        return len(set(values)) > 1 and all(natural(value)[0] == 0 for value in values)

    @cached_property
    def lines(self) -> dict[str, tuple[Part, str]]:
        """Part and variant of each line, by its name, the best first."""
        own = [
            ({**part.cells, "variant": entry.variant}, part, entry.variant)
            for part in self.parts
            for entry in part.best.ranking.entries
            if entry.variant in part.best.chosen
        ]
        told = telling(TELLING, [cells for cells, _, _ in own]) or TELLING[:1]
        words = {" · ".join(filter(None, (cells.get(n, "") for n in told))): (part, v) for cells, part, v in own}
        return dict(list(words.items())[:MOST_LINES])

    @property
    def is_by_variant(self) -> bool:
        return len({variant for _, variant in self.lines.values()}) == len(self.lines)

    @cached_property
    def measures(self) -> list[tuple[str, str, tuple[str, ...] | None]]:
        """What may be shown: words, the metric ("" for the rank), and the setting, None for the mean over all."""
        rankings = [part.best.among_all for part in self.parts]
        metrics = [name for name in rankings[0].metrics if all(name in ranking.metrics for ranking in rankings)]
        settings = [self._settings(part) for part in self.parts]
        shared = [said for said in settings[0] if said and all(said in of for of in settings)]
        found: list[tuple[str, str, tuple[str, ...] | None]] = []
        if all(part.tells for part in self.parts):
            found.append(("average rank", "", None))
        mean = ", mean over settings" if len(settings[0]) > 1 else ""
        found += [(f"{about(name).label}{mean}", name, None) for name in metrics]
        if 1 < len(shared) <= MOST_SETTINGS:
            found += [(f"{about(name).label}, {_said(said)}", name, said) for name in metrics for said in shared]
        return found

    def _settings(self, part: Part) -> dict[tuple[str, ...], tuple[str, ...]]:
        """The settings of a part by what tells them apart."""
        ranking = part.best.among_all
        names = [n for n in ("weights", "rule", "grid", "shift", "steps", "guidance") if n in part.best.results.columns]
        at = [part.best.results.columns.index(name) for name in names]
        varying = [(n, i) for n, i in zip(names, at, strict=True) if len({s[i] for s in ranking.settings}) > 1]
        return {
            tuple(f"{n}={s[i]}" for n, i in varying): s
            for s in sorted(ranking.settings, key=lambda s: list(map(natural, s)))
        }

    def rows(self) -> list[dict[str, Any]]:
        """A row a point: `at` of the measure, `x`, `value`, `low`, `high`, and the line's name."""
        rows = []
        for at, (_, metric, said) in enumerate(self.measures):
            for line, (part, variant) in self.lines.items():
                points = [p for c, p in self._points(part, variant, metric, said) if p is not None]
                if not points:
                    continue
                sign = -1 if metric and self.known.get(metric) == "max" else 1
                first = min(points, key=lambda point: sign * point["value"])
                is_known = not metric or metric in self.known
                last = max(points, key=lambda point: point["x"])
                facts = {"at": at, "line": line, "variant": variant, "family": family(variant)}
                rows += [{**facts, **p, "best": is_known and p is first, "last": p is last} for p in points]
        return rows

    def _points(
        self, part: Part, variant: str, metric: str, said: tuple[str, ...] | None
    ) -> list[tuple[Contender, dict[str, Any] | None]]:
        ranking, settings = part.best.among_all, self._settings(part)
        entries = {part.best.contenders[entry.variant]: entry for entry in ranking.ranked if not entry.diverged}
        found: list[tuple[Contender, dict[str, Any] | None]] = []
        for one, entry in entries.items():
            if one.variant != variant or not one.values[0]:
                continue
            point: dict[str, Any] = {"x": float(one.values[0])}
            if not metric:
                point |= {"value": digits(entry.rank_all or 0.0)}
                if entry.rank_all_low is not None and entry.rank_all_high is not None:
                    point |= {"low": digits(entry.rank_all_low), "high": digits(entry.rank_all_high)}
            else:
                score = entry.mean if said is None else ranking.scores[settings[said]].get(one.name)
                point = point | _told(score, metric)
            found.append((one, point if "value" in point else None))
        return found

    def chart(self, colours: Mapping[str, str]) -> dict[str, Any]:
        """A line each, with its name at its end; the page's choice says which measure."""
        rows = self.rows()
        base = alt.Chart(alt.NamedData("rows")).transform_filter("datum.at == at").transform_filter(SHOWN)
        if self.is_by_variant:
            scale = alt.Scale(domain=list(colours), range=list(colours.values()))
            colour = alt.Color("family:N", scale=scale, legend=None)
        else:
            names = sorted(self.lines, key=lambda name: [natural(part) for part in re.split(r"(\d+)", name)])
            shades = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
            colour = alt.Color("line:N", scale=alt.Scale(domain=names, range=shades), legend=None)
        places = sorted({row["x"] for row in rows})
        x = alt.X(
            "x:Q", title=self.key,
            scale=alt.Scale(type=log_if_wide(places), nice=False, zero=False, padding=16),
            axis=alt.Axis(values=places, format="~g", labelOverlap=True),
        )  # fmt: skip
        y = alt.Y("value:Q", title=None, **scaled([], padding=12))
        shown = alt.TitleParams(text=alt.ExprRef("measures[at]"), color="currentColor", fontSize=12.5, anchor="start")
        told = ("value", "low", "high") if any("low" in row for row in rows) else ("value",)
        tips = [alt.Tooltip("line:N"), alt.Tooltip("x:Q", title=self.key), *(alt.Tooltip(f"{n}:Q") for n in told)]
        hovered = alt.selection_point(
            name="hovered", on="pointerover", clear="pointerout", fields=["line"], nearest=False, empty=False
        )
        width = [{"param": "hovered", "empty": False, "value": 3.5}]
        lines = base.mark_line(opacity=0.85).encode(
            x=x, y=y, color=colour, detail="line:N", strokeWidth={"condition": width, "value": 1.8}
        ).add_params(hovered)  # fmt: skip
        drawn = alt.layer(
            base.mark_rule(strokeWidth=1.2, opacity=0.5).encode(x=x, y="low:Q", y2="high:Q", color=colour),
            lines,
            base.mark_circle(opacity=1).encode(
                x=x, y=y, color=colour, tooltip=tips, size=alt.condition("datum.best", alt.value(130), alt.value(36))
            ),
            base.transform_filter("datum.last").properties(name="ends").mark_text(
                align="left", dx=9, fontSize=11).encode(x=x, y=y, text="line:N", color=colour),
        )  # fmt: skip
        params = {
            "measures": [words for words, _, _ in self.measures],
            "families": list(colours),
            "needle": "",
            "at": 0,
        }
        given = [alt.param(name=name, value=value) for name, value in params.items()]
        room = 12 + LETTER * max(map(len, self.lines))  # at the right, for the names
        return specification(drawn.properties(title=shown), rows, max(320, EACH * len(self.lines)), given) | {
            "padding": {"left": 5, "top": 5, "bottom": 5, "right": room}
        }


def against(
    rows: Results, runs: Sequence[RunFolder], objectives: tuple[Objective, ...], together: Sequence[str] = ()
) -> list[Against]:
    """Every swept key of these runs, with whatever has several of its values. A key of which this cannot be said, as
    one variant has several runs at one value, is left out.
    """
    kept = {row.source for row in rows.rows}
    some = [run for run in runs if str(run.path) in kept]
    standing, known = alike(some), dict(OBJECTIVES) | directions(some)
    found = []
    for key in swept_keys(some):
        try:
            pool, named = contenders(rows, some, [key], together)
        except ValueError:
            continue
        parts: dict[tuple[str, ...], list[Part]] = {}
        columns = [*WHERE, *TELLING[1:]]
        for cells, part in apart(pool, columns):
            told = dict(zip(columns, cells, strict=True))
            own = {row.variant: named[row.variant] for row in part.rows}
            if len({c.values for c in own.values()}) > 1 and any(
                row.is_ranked(o.name for o in objectives) for row in part.rows
            ):
                where = (told["dataset"], standing.get(told["protocol"], told["protocol"]), told["data"])
                parts.setdefault(where, []).append(Part(told, best(part, own, objectives)))
        places = [dict(zip(WHERE, place, strict=True)) for place in parts]
        told_apart = telling(WHERE, places) or WHERE[:1]
        for place, own_parts in zip(places, parts.values(), strict=True):
            said = ", ".join(place[name] for name in told_apart)
            if any(part.best.chosen for part in own_parts):
                found.append(Against(key, said, own_parts, known))
    return found


def _told(score: Score | None, metric: str) -> dict[str, float]:
    if score is None or metric not in score.mean:
        return {}
    mean, se = score.mean[metric], score.se.get(metric)
    return {"value": digits(mean)} | ({} if se is None else {"low": digits(mean - se), "high": digits(mean + se)})


def _said(setting: Sequence[str]) -> str:
    words = {"steps": "{} steps", "guidance": "guidance {}", "shift": "shift {}", "grid": "{} grid"}
    parts = (text.partition("=") for text in setting)
    return ", ".join(words.get(name, "{}").format("EMA" if value == "ema" else value) for name, _, value in parts)
