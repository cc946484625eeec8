"""Vega-Lite charts of families of laws: what each comes to over its parameters."""

import re
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from analysis.canvas import SHOWN, Canvas, digits
from analysis.objectives import about
from analysis.ranking import Entry
from analysis.words import number

FEWEST = 3  # variants of a family that are drawn over its parameters
BEST, WORST, FRAME = "#0b4a6f", "#e9eef2", "#f08c1a"  # of the tiles
TILE = 27  # pixels of height


@dataclass(frozen=True)
class Family:
    """Variants of one name that differ in one parameter or two."""

    title: str
    pattern: str
    parameters: tuple[str, ...]

    def place(self, variant: str) -> tuple[float, ...] | None:
        """The parameters of a variant; None where it is no member."""
        match = re.fullmatch(self.pattern, variant)
        return tuple(float(value or 0) for value in match.groups()) if match else None


_NUMBER = r"(-?\d+\.\d+)"
FAMILIES = (
    Family("rf/lognorm(m, s)", rf"rf/lognorm\({_NUMBER},{_NUMBER}\)", ("m", "s")),
    Family("edm(P_m, P_s)", rf"edm\({_NUMBER},{_NUMBER}\)", ("P_m", "P_s")),
    Family("rf/mode(s)", rf"rf(?:/mode\({_NUMBER}\))?", ("s",)),
)


class Maps(Canvas):
    """The charts of one study. The page chooses which measure they show."""

    @property
    def measures(self) -> list[str]:
        """What can be shown, in words."""
        labels = (about(name).label for name in self.study.ranking.metrics)
        return ["average rank", *(f"{label}, mean over settings" for label in labels)]

    def of(self, family: Family, title: str = "") -> dict[str, Any] | None:
        """A heat map over two parameters, a line along one; None where too few variants of the family are ranked."""
        members = {e.variant: at for e in self.study.ranking.ranked if (at := family.place(e.variant)) is not None}
        if len(members) < FEWEST:
            return None
        rows = [row for at in range(len(self.measures)) for row in self._rows(at, members)]
        drawn = self._tiles(family) if len(family.parameters) == 2 else self._line(family)
        heights = {row["y"] for row in rows if "y" in row}
        height = TILE * len(heights) if heights else 150
        if title:
            drawn = drawn.properties(title=alt.TitleParams(title, color="currentColor", fontSize=12.5, anchor="start"))
        return self.finish(drawn, rows, height, asks=True)

    def _rows(self, at: int, members: dict[str, tuple[float, ...]]) -> list[dict[str, Any]]:
        sign = self._sign(at)
        found = {e.variant: known for e in self.study.ranking.ranked if (known := self._value(at, e)) is not None}
        costs = sorted(sign * value for value, _, _ in found.values())
        rows: list[dict[str, Any]] = []
        for variant in filter(members.__contains__, found):
            value, low, high = found[variant]
            place = costs.index(sign * value)
            row = {**self.facts(variant), "at": at, "value": digits(value), "told": number(value)}
            row |= {"place": place + 1, "shade": digits(place / max(1, len(costs) - 1))}
            row |= dict(zip(("x", "y"), members[variant], strict=False))
            rows.append(row | ({"low": digits(low), "high": digits(high)} if low is not None else {}))
        best = min((row["shade"] for row in rows), default=0.0)
        return [{**row, "best": row["shade"] == best} for row in rows]

    def _value(self, at: int, entry: Entry) -> tuple[float, Any, Any] | None:
        """The measure of a variant with the ends of its interval, None where unknown."""
        if at == 0:
            assert entry.rank_all is not None
            return entry.rank_all, entry.rank_all_low, entry.rank_all_high
        name = self.study.ranking.metrics[at - 1]
        scores = [self.study.ranking.scores[setting].get(entry.variant) for setting in self.study.ranking.settings]
        means = [score.mean[name] for score in scores if score is not None and name in score.mean]
        if len(means) < len(scores):
            return None
        value, se = fmean(means), entry.mean.se.get(name) if entry.mean else None
        return (value, None, None) if se is None else (value, value - se, value + se)

    def _sign(self, at: int) -> int:
        """1 where less is better, else -1; of what no run says it of, less is taken to be."""
        if at == 0:
            return 1
        name = self.study.ranking.metrics[at - 1]
        known = {objective.name: objective.direction for objective in self.study.objectives}
        return -1 if known.get(name, self.study.extractor.get(f"metrics.{name}")) == "max" else 1

    def _tiles(self, family: Family) -> Any:
        base = self.rows(asks=True).transform_filter(SHOWN)
        x = alt.X("x:O", title=family.parameters[0], sort="ascending", axis=alt.Axis(labelAngle=0, grid=False))
        y = alt.Y("y:O", title=family.parameters[1], sort="descending", axis=alt.Axis(grid=False))
        scale = alt.Scale(domain=[0, 1], range=[BEST, WORST], interpolate="lab")
        colour = alt.Color("shade:Q", scale=scale, legend=None)
        tiles = base.mark_rect().encode(x=x, y=y, color=colour, tooltip=_tips())
        frame = base.transform_filter("datum.best").mark_rect(fillOpacity=0, stroke=FRAME, strokeWidth=2.5)
        ink = alt.condition("datum.shade < 0.5", alt.value("white"), alt.value("#1b1f24"))
        texts = base.mark_text(fontSize=10.5).encode(x=x, y=y, text="told:N", color=ink)
        return alt.layer(tiles, texts, frame.encode(x=x, y=y))

    def _line(self, family: Family) -> Any:
        base = self.rows(asks=True).transform_filter(SHOWN)
        x = alt.X(
            "x:Q", title=family.parameters[0], scale=alt.Scale(nice=False, padding=14), axis=alt.Axis(tickCount=7)
        )
        y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False, nice=True, padding=8), axis=alt.Axis(tickCount=5))
        return alt.layer(
            base.mark_line(color="currentColor", opacity=0.5).encode(x=x, y=y),
            base.mark_rule(color="currentColor", opacity=0.6).encode(x=x, y="low:Q", y2="high:Q"),
            base.mark_circle(opacity=1).encode(
                x=x,
                y=y,
                color=self.colour,
                size=alt.condition("datum.best", alt.value(180), alt.value(50)),
                tooltip=_tips(),
            ),
        )


def _tips() -> list[Any]:
    return ["variant:N", "value:Q", "low:Q", "high:Q", alt.Tooltip("place:Q", title="place")]
