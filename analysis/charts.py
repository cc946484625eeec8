"""Vega-Lite charts of a study: scores, timestep laws, losses."""

from typing import Any

import altair as alt
import numpy as np

from analysis.canvas import SHOWN, Canvas, digits, is_positive, scaled, thin
from analysis.objectives import Objective

LOG_SNR = 12.0  # shown on both sides of 0


class Charts(Canvas):
    """The charts of every report."""

    def scatters(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Each objective against the first, one setting at a time, and the names of those: means over seeds."""
        ranking, rows = self.study.ranking, []
        first, *others = ranking.objectives
        for at, setting in enumerate(self.study.settings):
            for variant, score in ranking.scores[setting].items():
                front = ranking.fronts[setting][variant] if self.is_whole(variant, setting) else None
                rows.append({**self.facts(variant), "at": at, "front": front, "seeds": score.n, **self.errors(score)})
        charts = [self.finish(self._scatter(first, other), rows, 420, asks=True) for other in others]
        return charts, [self.study.label(s) for s in self.study.settings]

    def _scatter(self, first: Objective, second: Objective) -> Any:
        """Two objectives; the fronts are drawn where there are no more, as their lines would cross otherwise."""
        ranking, base = self.study.ranking, self.rows(asks=True)
        x_field, y_field = self.fields[first.name], self.fields[second.name]
        x = alt.X(**self.axis(first), scale=alt.Scale(zero=False, nice=True, padding=40))
        y = alt.Y(**self.axis(second), scale=alt.Scale(zero=False, nice=True, padding=18))
        fronts_drawn = base.transform_filter("datum.front != null").mark_line(
            strokeWidth=1.2, color="currentColor").encode(
            x=x, y=y, detail="front:N", order=f"{x_field}:Q",
            opacity=alt.condition("datum.front == 1", alt.value(0.75), alt.value(0.18)),
        )  # fmt: skip
        tooltip = ["variant:N", "family:N", "front:Q", *self.tips(), "rank:Q", "seeds:Q"]
        shown = base.transform_filter(SHOWN)
        whole, partial = shown.transform_filter("datum.front != null"), shown.transform_filter("datum.front == null")
        in_lines = len(ranking.objectives) == 2
        opacity = alt.value(0.9) if in_lines else alt.condition("datum.front == 1", alt.value(0.95), alt.value(0.35))
        points = [
            whole.mark_circle(size=110).encode(x=x, y=y, color=self.colour, opacity=opacity, tooltip=tooltip),
            # it lacks some setting or seed, or has diverged in one
            partial.mark_point(size=70, opacity=0.9).encode(x=x, y=y, color=self.colour, tooltip=tooltip),
        ]
        bar = shown.mark_rule(opacity=0.45)
        bars = [
            bar.encode(x=f"{x_field}_low:Q", x2=f"{x_field}_high:Q", y=y, color=self.colour),
            bar.encode(x=x, y=f"{y_field}_low:Q", y2=f"{y_field}_high:Q", color=self.colour),
        ]
        extent = base.transform_joinaggregate(low=f"min({x_field})", high=f"max({x_field})").transform_filter(SHOWN)
        # names stand on the empty side of the front, but for those that would run out of the chart there
        side, edge = (1, "datum.low") if first.sign > 0 else (-1, "datum.high")
        above = -1 if second.sign < 0 else 1
        at_edge = f"abs(datum.{x_field} - {edge}) < 0.25 * (datum.high - datum.low)"
        named = extent.transform_filter("datum.front == 1").encode(x=x, y=y, text="variant:N")
        away: dict[int, Any] = {1: "right", -1: "left"}
        style: dict[str, Any] = {"fontSize": 11, "color": "currentColor"}
        names = [
            named.transform_filter(f"!({at_edge})")
            .properties(name="names")
            .mark_text(align=away[side], dx=-9 * side, dy=6 * above, **style),
            named.transform_filter(at_edge)
            .properties(name="names_edge")
            .mark_text(align=away[-side], dx=9 * side, dy=-10 * above, **style),
        ]
        return alt.layer(
            *([fronts_drawn] if in_lines else []), *(bars if len(ranking.seeds) > 1 else []), *points, *names
        )

    def against_steps(self, objective: Objective) -> tuple[dict[str, Any], list[str]] | None:
        """The paper's Fig. 3: a score against the number of steps, by variant; None where steps do not vary."""
        study, field = self.study, self.fields[objective.name]
        curves = self._curves(("steps",))
        if not curves:  # a small protocol may change guidance with the number of steps
            curves = {f"{k}, guidance by number of steps": v for k, v in self._curves(("steps", "guidance")).items()}
        if not curves:
            return None
        rows = []
        for at, settings in enumerate(curves.values()):
            for setting in settings:
                for variant, score in study.ranking.scores[setting].items():
                    if variant in self.first:
                        row = {"at": at, "steps": float(study.cell(setting, "steps")), "seeds": score.n}
                        own = self.errors(score, objective.name)
                        rows.append({**self.facts(variant), **row, **own, "whole": self.is_whole(variant, setting)})
        ticks = sorted({row["steps"] for row in rows})
        ends = [row[name] for row in rows for name in (field, f"{field}_low") if name in row]
        base = self.rows(asks=True).transform_filter(SHOWN)
        x = alt.X("steps:Q", title="sampling steps", axis=alt.Axis(values=ticks, format="d"),
                  scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False, padding=12))  # fmt: skip
        y = alt.Y(**self.axis(objective), **scaled(ends, padding=10))
        error = [alt.Tooltip(f"{field}_se:Q", title="standard error")] if len(study.ranking.seeds) > 1 else []
        chart = self.lines(
            base, x=x, y=y, point=True,
            tooltip=["variant:N", "steps:Q", *self.tips(objective.name), *error, "rank:Q", "seeds:Q"],
            strokeDash=alt.condition("datum.whole", alt.value([1, 0]), alt.value([4, 3])),
        )  # fmt: skip
        bars = base.transform_filter("datum.lead").mark_rule(strokeWidth=1.2).encode(
            x=x, y=f"{field}_low:Q", y2=f"{field}_high:Q", color=self.colour)  # fmt: skip
        drawn = alt.layer(bars, chart) if len(study.ranking.seeds) > 1 else chart
        return self.finish(drawn, rows, 300, asks=True), list(curves)

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
        for run in self.one_run_a_variant():
            columns = run.density
            if not {"u", "log_snr", "t", "density_t"} <= columns.keys():
                continue
            u, log_snr = np.array(columns["u"]), np.array(columns["log_snr"])
            with np.errstate(divide="ignore", invalid="ignore"):
                # density of log-SNR: |du / d log-SNR| along the quantile function
                over_log_snr = np.abs(np.gradient(u, log_snr))
            keep = np.flatnonzero(np.isfinite(log_snr) & np.isfinite(over_log_snr))[::2]
            curve = {"t": columns["t"], "p": columns["density_t"], "log_snr": log_snr, "q": over_log_snr}
            values.append({**self.facts(run.variant), **{k: [digits(v[i]) for i in keep] for k, v in curve.items()}})
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
            chart = self.lines(
                self.rows().transform_filter(SHOWN).transform_flatten([x, y]),
                x=alt.X(
                    f"{x}:Q", title=x_title, scale=alt.Scale(domain=domain, nice=False), axis=alt.Axis(tickCount=6)
                ),
                y=alt.Y(f"{y}:Q", title=y_title, scale=scale, axis=alt.Axis(tickCount=5)),
                tooltip=["variant:N", f"{x}:Q", f"{y}:Q"],
            )
            charts.append(self.finish(chart, own, 280))
        return charts

    def losses(self) -> tuple[dict[str, Any], list[str]] | None:
        """Training and validation losses of the first seed; None where nothing was logged."""
        kinds = {"val_loss_ema": "validation, EMA weights", "val_loss_raw": "validation, raw weights",
                 "train_loss": "training"}  # fmt: skip
        curves = []
        for run in self.one_run_a_variant():
            for key, kind in kinds.items():
                pairs = [(r["step"], r[key]) for r in run.metrics if is_positive(r.get(key))]
                if pairs:
                    step, loss = thin(pairs)
                    curves.append({**self.facts(run.variant), "kind": kind, "step": step, "loss": loss})
        if not curves:
            return None
        labels = [kind for kind in kinds.values() if any(curve["kind"] == kind for curve in curves)]
        values = [{**curve, "at": labels.index(curve["kind"])} for curve in curves]
        chart = self.lines(
            self.rows(asks=True).transform_filter(SHOWN).transform_flatten(["step", "loss"]),
            x=alt.X("step:Q", title="training step", scale=alt.Scale(nice=False)),
            y=alt.Y("loss:Q", title="loss", **scaled([loss for curve in curves for loss in curve["loss"]], padding=8)),
            tooltip=["variant:N", "kind:N", "step:Q", "loss:Q", "rank:Q"],
        )  # fmt: skip
        return self.finish(chart, values, 320, asks=True), labels
