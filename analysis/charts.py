"""Vega-Lite charts of a study. Colours of text and rules are the page's own, so that they follow light and dark."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

import altair as alt
import numpy as np

from analysis.collect import Run
from analysis.study import Study
from flowzoo.formulation.names import family

POINTS = 100  # of a curve: more cannot be seen
LOG_SNR = 12.0  # shown on both sides of 0
SHOWN = "indexof(families, datum.family) >= 0 && indexof(lower(datum.variant), needle) >= 0"
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "inherit",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "gridColor": "currentColor", "gridOpacity": 0.1,
        "domain": False, "ticks": False, "labelPadding": 6, "titleFontWeight": 500, "titleFontSize": 12,
        "labelFontSize": 11, "titlePadding": 10,
    },
}  # fmt: skip


class Charts:
    """Charts that share the page's family colours and its two filters, the parameters `families` and `needle`."""

    def __init__(self, study: Study, colours: Mapping[str, str]) -> None:
        self.study = study
        self.colour = alt.Color(
            "family:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=None
        )
        self.families = alt.param(name="families", value=list(colours))
        self.needle = alt.param(name="needle", value="")
        self.rank = {e.variant: round(e.rank_all, 2) for e in study.ranking.ranked if e.rank_all is not None}
        lead: dict[str, str] = {}
        for entry in study.ranking.ranked:
            lead.setdefault(family(entry.variant), entry.variant)
        self.leads = set(lead.values())

    def _facts(self, variant: str) -> dict[str, Any]:
        facts = {"variant": variant, "family": family(variant), "lead": variant in self.leads}
        return facts | ({"rank": self.rank[variant]} if variant in self.rank else {})

    def _finish(self, chart: Any, height: int, params: Sequence[Any] = ()) -> dict[str, Any]:
        whole = chart.add_params(self.families, self.needle, *params).properties(width="container", height=height)
        return whole.configure(**CONFIG).to_dict()

    def scatter(self) -> tuple[dict[str, Any], list[str]]:
        """CLIP against FID with the fronts drawn, one (setting, seed) at a time, and the names of those."""
        study = self.study
        values: list[dict[str, Any]] = []
        labels: list[str] = []
        many = len(study.ranking.seeds) > 1
        for setting in study.settings:
            for seed in study.ranking.seeds:
                fronts = study.ranking.fronts.get((seed, setting))
                if fronts is None:
                    continue
                for variant, rows in study.scores[setting].items():
                    values += [
                        {**self._facts(variant), "at": len(labels), "front": fronts[variant], "fid": digits(row.fid),
                         "clip": digits(row.clip), "seed": seed}
                        for row in rows if row.seed == seed
                    ]  # fmt: skip
                labels.append(study.label(setting) + (f", seed {seed}" if many else ""))
        at = alt.param(name="at", value=0)
        base = alt.Chart(alt.Data(values=values)).transform_filter("datum.at == at")
        x = alt.X("fid:Q", title="FID (lower is better)", scale=alt.Scale(zero=False, nice=True, padding=40))
        y = alt.Y("clip:Q", title="CLIP score (higher is better)", scale=alt.Scale(zero=False, nice=True, padding=18))
        fronts_drawn = base.mark_line(strokeWidth=1.2, color="currentColor").encode(
            x=x, y=y, detail="front:N", order="fid:Q",
            opacity=alt.condition("datum.front == 1", alt.value(0.75), alt.value(0.18)),
        )  # fmt: skip
        tooltip = ["variant:N", "family:N", "front:Q", "fid:Q", "clip:Q", "rank:Q"]
        shown = base.transform_filter(SHOWN)
        points = shown.mark_circle(size=110, opacity=0.9).encode(x=x, y=y, color=self.colour, tooltip=tooltip)
        first = base.transform_joinaggregate(low="min(fid)", high="max(fid)").transform_filter(SHOWN)
        # names stand on the empty side of the front, but for those that would run into the axis
        at_axis = "datum.fid - datum.low < 0.25 * (datum.high - datum.low)"
        named = first.transform_filter("datum.front == 1").encode(x=x, y=y, text="variant:N")
        style: dict[str, Any] = {"fontSize": 11, "color": "currentColor"}
        names = [
            named.transform_filter(f"!({at_axis})").mark_text(align="right", dx=-9, dy=-6, **style),
            named.transform_filter(at_axis).mark_text(align="left", dx=9, dy=10, **style),
        ]
        return self._finish(alt.layer(fronts_drawn, points, *names), 420, [at]), labels

    def against_steps(self, metric: str, title: str) -> tuple[dict[str, Any], list[str]] | None:
        """The paper's Fig. 3: a score against the number of steps, by variant; None where steps do not vary."""
        study = self.study
        curves = self._curves(("steps",))
        if not curves:  # a small protocol may change guidance with the number of steps
            curves = {f"{k}, guidance by number of steps": v for k, v in self._curves(("steps", "guidance")).items()}
        if not curves:
            return None
        values = []
        for at, settings in enumerate(curves.values()):
            for setting in settings:
                for variant, rows in study.scores[setting].items():
                    scores = [getattr(row, metric) for row in rows]
                    steps = float(study.cell(setting, "steps"))
                    values.append(
                        {
                            **self._facts(variant),
                            "at": at,
                            "steps": steps,
                            metric: digits(fmean(scores)),
                            "n": len(rows),
                        }
                    )
        ticks = sorted({value["steps"] for value in values})
        y_type = _log_if_wide([value[metric] for value in values])
        chart = self._lines(
            alt.Chart(alt.Data(values=values)).transform_filter("datum.at == at").transform_filter(SHOWN),
            x=alt.X("steps:Q", title="sampling steps",
                    scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False, padding=12),
                    axis=alt.Axis(values=ticks, format="d")),
            y=alt.Y(f"{metric}:Q", title=title, scale=alt.Scale(type=y_type, zero=False, nice=False, padding=10),
                    axis=alt.Axis(format=".3~g", tickCount=6)),
            tooltip=["variant:N", "steps:Q", f"{metric}:Q", "rank:Q", alt.Tooltip("n:Q", title="seeds")], point=True,
        )  # fmt: skip
        return self._finish(chart, 300, [alt.param(name="at", value=0)]), list(curves)

    def _curves(self, without: tuple[str, ...]) -> dict[str, list[tuple[str, ...]]]:
        """Settings that differ in the number of steps (and what else is in `without`) alone, by what they share."""
        by_label: dict[str, list[tuple[str, ...]]] = {}
        for setting in self.study.settings:
            by_label.setdefault(self.study.label(setting, without), []).append(setting)
        steps = {label: {self.study.cell(s, "steps") for s in found} for label, found in by_label.items()}
        return {label: found for label, found in by_label.items() if len(found) == len(steps[label]) > 1}

    def densities(self) -> list[dict[str, Any]]:
        """The timestep laws, over t and over log-SNR."""
        values = []
        for run in self._one_run_a_variant():
            columns = run.density
            if not {"u", "log_snr", "t", "density_t"} <= columns.keys():
                continue
            u, log_snr = np.array(columns["u"]), np.array(columns["log_snr"])
            with np.errstate(divide="ignore", invalid="ignore"):
                # density of log-SNR: |du / d log-SNR| along the quantile function
                over_log_snr = np.abs(np.gradient(u, log_snr))
            keep = np.flatnonzero(np.isfinite(log_snr) & np.isfinite(over_log_snr))[::2]
            curve = {"t": columns["t"], "p": columns["density_t"], "log_snr": log_snr, "q": over_log_snr}
            values.append({**self._facts(run.variant), **{k: [digits(v[i]) for i in keep] for k, v in curve.items()}})
        if not values:
            return []
        charts = []
        for x, y, x_title, y_title, domain, top in (
            ("t", "p", "t (0 = data, 1 = noise)", "density over t", (0.0, 1.0), 4.0),
            ("log_snr", "q", "log-SNR (noise on the left)", "density over log-SNR", (-LOG_SNR, LOG_SNR), 0.8),
        ):
            tallest = max(max(value[y], default=0.0) for value in values)
            scale = alt.Scale(domain=(0, top)) if tallest > top else alt.Scale()  # mode(1.75) has a pole at its middle
            # only what a chart draws travels with it
            own = [{k: v for k, v in value.items() if k not in {"t", "p", "log_snr", "q"} - {x, y}} for value in values]
            chart = self._lines(
                alt.Chart(alt.Data(values=own)).transform_filter(SHOWN).transform_flatten([x, y]),
                x=alt.X(
                    f"{x}:Q", title=x_title, scale=alt.Scale(domain=domain, nice=False), axis=alt.Axis(tickCount=6)
                ),
                y=alt.Y(f"{y}:Q", title=y_title, scale=scale, axis=alt.Axis(tickCount=5)),
                tooltip=["variant:N", f"{x}:Q", f"{y}:Q"],
            )
            charts.append(self._finish(chart, 280))
        return charts

    def losses(self) -> tuple[dict[str, Any], list[str]] | None:
        """Training and validation losses of the first seed; None where nothing was logged."""
        kinds = {"val_loss_ema": "validation, EMA weights", "val_loss_raw": "validation, raw weights",
                 "train_loss": "training"}  # fmt: skip
        curves = []
        for run in self._one_run_a_variant():
            for key, kind in kinds.items():
                pairs = [(r["step"], r[key]) for r in run.metrics if is_positive(r.get(key))]
                if pairs:
                    step, loss = thin(pairs)
                    curves.append({**self._facts(run.variant), "kind": kind, "step": step, "loss": loss})
        if not curves:
            return None
        labels = [kind for kind in kinds.values() if any(curve["kind"] == kind for curve in curves)]
        values = [{**curve, "at": labels.index(curve["kind"])} for curve in curves]
        y_type = _log_if_wide([loss for curve in curves for loss in curve["loss"]])
        chart = self._lines(
            alt.Chart(alt.Data(values=values)).transform_filter("datum.at == at").transform_filter(SHOWN)
            .transform_flatten(["step", "loss"]),
            x=alt.X("step:Q", title="training step", scale=alt.Scale(nice=False)),
            y=alt.Y("loss:Q", title="loss",
                    scale=alt.Scale(type=y_type, zero=False, nice=False, padding=8),
                    axis=alt.Axis(format=".3~g", tickCount=6)),
            tooltip=["variant:N", "kind:N", "step:Q", "loss:Q", "rank:Q"],
        )  # fmt: skip
        return self._finish(chart, 320, [alt.param(name="at", value=0)]), labels

    def _lines(self, base: Any, point: bool = False, **encoding: Any) -> Any:
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

    def _one_run_a_variant(self) -> list[Run]:
        first: dict[str, Run] = {}
        for run in sorted(self.study.runs, key=lambda r: (not r.rows, r.seed)):
            first.setdefault(run.variant, run)
        return sorted(first.values(), key=lambda run: self.rank.get(run.variant, np.inf))


def thin(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """At most `POINTS` points: means of equal stretches of the curve."""
    parts = np.array_split(np.asarray(pairs, dtype=float), min(POINTS, len(pairs)))
    return [digits(p[:, 0].mean()) for p in parts], [digits(p[:, 1].mean()) for p in parts]


def digits(value: float) -> float:
    """Five significant digits: enough for a chart, small on the page."""
    return float(f"{value:.5g}")


def is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def _log_if_wide(values: Sequence[float]) -> Literal["log", "linear"]:
    """A log axis where values span more than a factor of four."""
    return "log" if values and min(values) > 0 and max(values) > 4 * min(values) else "linear"
