"""Vega-Lite charts of a study: scores, timestep laws, losses."""

from typing import Any

import altair as alt
import numpy as np

from analysis.canvas import SHOWN, Canvas, digits, is_positive, log_if_wide, thin
from analysis.ranking import Score

LOG_SNR = 12.0  # shown on both sides of 0


class Charts(Canvas):
    """The charts of every report."""

    def scatter(self) -> tuple[dict[str, Any], list[str]]:
        """CLIP against FID with the fronts drawn, one setting at a time, and the names of those: means over seeds."""
        ranking, rows = self.study.ranking, []
        for at, setting in enumerate(self.study.settings):
            for variant, score in ranking.scores[setting].items():
                front = ranking.fronts[setting][variant] if self.is_whole(variant, setting) else None
                row = {"at": at, "front": front, "seeds": score.n, **errors(score)}
                rows.append({**self.facts(variant), **row})
        base = self.rows(asks=True)
        x = alt.X("fid:Q", title="FID (lower is better)", scale=alt.Scale(zero=False, nice=True, padding=40))
        y = alt.Y("clip:Q", title="CLIP score (higher is better)", scale=alt.Scale(zero=False, nice=True, padding=18))
        fronts_drawn = base.transform_filter("datum.front != null").mark_line(
            strokeWidth=1.2, color="currentColor").encode(
            x=x, y=y, detail="front:N", order="fid:Q",
            opacity=alt.condition("datum.front == 1", alt.value(0.75), alt.value(0.18)),
        )  # fmt: skip
        tooltip = ["variant:N", "family:N", "front:Q", "fid:Q", "clip:Q", "rank:Q", "seeds:Q"]
        shown = base.transform_filter(SHOWN)
        whole, partial = shown.transform_filter("datum.front != null"), shown.transform_filter("datum.front == null")
        points = [
            whole.mark_circle(size=110, opacity=0.9).encode(x=x, y=y, color=self.colour, tooltip=tooltip),
            # it lacks some setting or seed, or has diverged in one
            partial.mark_point(size=70, opacity=0.9).encode(x=x, y=y, color=self.colour, tooltip=tooltip),
        ]
        bars = [
            shown.mark_rule(opacity=0.45).encode(x="fid_low:Q", x2="fid_high:Q", y="clip:Q", color=self.colour),
            shown.mark_rule(opacity=0.45).encode(x="fid:Q", y="clip_low:Q", y2="clip_high:Q", color=self.colour),
        ]
        first = base.transform_joinaggregate(low="min(fid)", high="max(fid)").transform_filter(SHOWN)
        # names stand on the empty side of the front, but for those that would run into the axis
        at_axis = "datum.fid - datum.low < 0.25 * (datum.high - datum.low)"
        named = first.transform_filter("datum.front == 1").encode(x=x, y=y, text="variant:N")
        style: dict[str, Any] = {"fontSize": 11, "color": "currentColor"}
        names = [
            named.transform_filter(f"!({at_axis})").mark_text(align="right", dx=-9, dy=-6, **style),
            named.transform_filter(at_axis).mark_text(align="left", dx=9, dy=10, **style),
        ]
        drawn = [fronts_drawn, *(bars if len(ranking.seeds) > 1 else []), *points, *names]
        return self.finish(alt.layer(*drawn), rows, 420, asks=True), [self.study.label(s) for s in self.study.settings]

    def against_steps(self, metric: str, title: str) -> tuple[dict[str, Any], list[str]] | None:
        """The paper's Fig. 3: a score against the number of steps, by variant; None where steps do not vary."""
        study = self.study
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
                        own = {key: value for key, value in errors(score).items() if key.startswith(metric)}
                        rows.append({**self.facts(variant), **row, **own, "whole": self.is_whole(variant, setting)})
        ticks = sorted({row["steps"] for row in rows})
        y_type = log_if_wide([row[metric] for row in rows])
        base = self.rows(asks=True).transform_filter(SHOWN)
        x = alt.X("steps:Q", title="sampling steps", axis=alt.Axis(values=ticks, format="d"),
                  scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False, padding=12))  # fmt: skip
        y = alt.Y(f"{metric}:Q", title=title, scale=alt.Scale(type=y_type, zero=False, nice=False, padding=10),
                  axis=alt.Axis(format=".3~g", tickCount=6))  # fmt: skip
        chart = self.lines(
            base, x=x, y=y, point=True,
            tooltip=["variant:N", "steps:Q", f"{metric}:Q", f"{metric}_se:Q", "rank:Q", "seeds:Q"],
            strokeDash=alt.condition("datum.whole", alt.value([1, 0]), alt.value([4, 3])),
        )  # fmt: skip
        bars = base.transform_filter("datum.lead").mark_rule(strokeWidth=1.2).encode(
            x=x, y=f"{metric}_low:Q", y2=f"{metric}_high:Q", color=self.colour)  # fmt: skip
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
        y_type = log_if_wide([loss for curve in curves for loss in curve["loss"]])
        chart = self.lines(
            self.rows(asks=True).transform_filter(SHOWN).transform_flatten(["step", "loss"]),
            x=alt.X("step:Q", title="training step", scale=alt.Scale(nice=False)),
            y=alt.Y("loss:Q", title="loss",
                    scale=alt.Scale(type=y_type, zero=False, nice=False, padding=8),
                    axis=alt.Axis(format=".3~g", tickCount=6)),
            tooltip=["variant:N", "kind:N", "step:Q", "loss:Q", "rank:Q"],
        )  # fmt: skip
        return self.finish(chart, values, 320, asks=True), labels


def errors(score: Score) -> dict[str, float | None]:
    """A score with a standard error to both sides; without errors, the mean alone."""
    out: dict[str, float | None] = {}
    for name, mean, se in (("fid", score.fid, score.fid_se), ("clip", score.clip, score.clip_se)):
        out[name] = digits(mean)
        if se is not None:
            out |= {f"{name}_se": digits(se), f"{name}_low": digits(mean - se), f"{name}_high": digits(mean + se)}
    return out
