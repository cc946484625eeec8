"""A prediction as one PNG file: the spectrum, and the law over ln sigma and over rf's t with the nearest of the 61."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import torch

from flowzoo.advice.prediction import OUTSIDE, Near, Prediction, density

LAW, OTHERS = "#2f80d8", ("#e07b2f", "#1fa37a", "#cf5b9b")
WIDTH, HEIGHT, SPAN = 300, 220, 4.0  # pixels, and deviations of ln sigma on each side
_POINTS = 161


def draw(path: Path, prediction: Prediction, near: Sequence[Near], title: str) -> None:
    """`near` are those shown beside the law, three at most. Raises OSError."""
    chart = alt.hconcat(_spectrum(prediction), _over_log_sigma(prediction, near), _over_t(prediction, near))
    chart = chart.properties(title=title, background="white", spacing=30, padding=12)
    chart = chart.configure_view(stroke=None).configure_title(fontSize=12, offset=10)
    chart.save(str(path), format="png", scale_factor=2)


def _spectrum(prediction: Prediction) -> Any:
    values = prediction.eigenvalues.numpy()
    count = np.unique(np.geomspace(1, len(values), 200).round().astype(int))
    share = np.cumsum(values)[count - 1] / values.sum()
    rows = [{"count": int(n), "share": float(s)} for n, s in zip(count, share, strict=True)]
    of = f"{prediction.dimensions:,} numbers an image, {prediction.images:,} images"
    line = alt.Chart(alt.Data(values=rows)).mark_line(color=LAW, strokeWidth=2)
    return line.encode(
        x=alt.X(
            "count:Q",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(values=[10**k for k in range(5)]),
            title="largest eigenvalues",
        ),
        y=alt.Y("share:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"), title="share of the variance"),
    ).properties(width=WIDTH, height=HEIGHT, title=f"Spectrum of {of}")


def _over_log_sigma(prediction: Prediction, near: Sequence[Near]) -> Any:
    middle, wide = prediction.law.mean, SPAN * prediction.law.deviation
    x = torch.linspace(middle - wide, middle + wide, _POINTS, dtype=torch.float64)
    each = np.stack([law.density(x).numpy() for law in prediction.replicates])
    low, high = np.quantile(each, [OUTSIDE, 1 - OUTSIDE], axis=0)
    named = {one.name: density(one.name, x.numpy()) for one in near}
    curves = {"predicted": prediction.law.density(x).numpy(), **named}
    return _curves(x.numpy(), curves, (low, high), "ln sigma", "Law of ln sigma; band: 95 % of resampled images")


def _over_t(prediction: Prediction, near: Sequence[Near]) -> Any:
    t = torch.linspace(0, 1, _POINTS + 2, dtype=torch.float64)[1:-1]
    level, slope = torch.logit(t), 1 / (t * (1 - t))
    each = np.stack([(law.density(level) * slope).numpy() for law in prediction.replicates])
    low, high = np.quantile(each, [OUTSIDE, 1 - OUTSIDE], axis=0)
    named = {one.name: density(one.name, level.numpy()) * slope.numpy() for one in near}
    curves = {"predicted": (prediction.law.density(level) * slope).numpy(), **named}
    return _curves(t.numpy(), curves, (low, high), "t on rf: 0 is data, 1 is noise", "The same law of t")


def _curves(
    x: np.ndarray, curves: dict[str, np.ndarray], band: tuple[np.ndarray, np.ndarray], axis: str, title: str
) -> Any:
    rows = [
        {"x": float(a), "y": float(b), "law": name}
        for name, y in curves.items()
        for a, b in zip(x, y, strict=True)
    ]  # fmt: skip
    between = [{"x": float(a), "low": float(b), "high": float(c)} for a, b, c in zip(x, *band, strict=True)]
    colours = alt.Scale(domain=list(curves), range=[LAW, *OTHERS][: len(curves)])
    across = alt.X("x:Q", title=axis, scale=alt.Scale(domain=[float(x[0]), float(x[-1])], nice=False))
    area = alt.Chart(alt.Data(values=between)).mark_area(color=LAW, opacity=0.25)
    shaded = area.encode(x=across, y=alt.Y("low:Q", title="density"), y2="high:Q")
    lines = alt.Chart(alt.Data(values=rows)).mark_line(clip=True).encode(
        x=across,
        y=alt.Y("y:Q", title="density"),
        color=alt.Color("law:N", scale=colours, legend=alt.Legend(orient="bottom", title=None, columns=2)),
        strokeDash=alt.condition(alt.datum.law == "predicted", alt.value([1, 0]), alt.value([5, 3])),
    )  # fmt: skip
    return (shaded + lines).properties(width=WIDTH, height=HEIGHT, title=title)
