"""The HTML page of a report: one file that loads nothing, with its charts, pictures, style and scripts inside."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import vl_convert
import yaml

from analysis.charts import Charts
from analysis.families import colours
from analysis.paper import CITATION
from analysis.ranking import Entry
from analysis.study import Study, Table, number, shared_config
from analysis.thumbnails import thumbnails
from flowzoo.formulation.names import family

PICTURES = 3_000_000  # bytes of sample pictures, which with the chart library keeps the page under 5 MB
# The browser itself refuses anything from a network.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


def page(studies: Sequence[Study], title: str) -> str:
    """The whole report."""
    family_colours = colours(entry.variant for study in studies for entry in study.ranking.entries)
    sections = [_Section(s, f"s{i}", family_colours, PICTURES // len(studies)) for i, s in enumerate(studies)]
    body = "".join(section.html() for section in sections)
    chips = "".join(
        f'<button class="chip" aria-pressed="true" data-family="{escape(name)}" style="--family:{colour}">'
        f'<span class="dot"></span>{escape(name)}</button>'
        for name, colour in family_colours.items()
    )
    here = files("analysis")
    contents = ""
    if len(studies) > 1:
        links = "".join(f'<a href="#{s.id}">{escape(s.title)}</a>' for s in sections)
        contents = (
            f"<nav>{links}</nav><p class=muted>Scores of different data, backbones and protocols do not compare.</p>"
        )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{(here / 'page.css').read_text()}</style></head><body>"
        f"<header><div><h1>{escape(title)}</h1>"
        "<p>Training formulations ranked by non-dominated sorting on FID and CLIP score, after "
        f"{escape(CITATION)}: within each setting the Pareto-optimal variants form front 1, without them the "
        f"next front 2, and so on; a rank is the average front over settings. 1 is best.</p>{contents}</div></header>"
        '<div class="filters"><div><input id="search" type="search" placeholder="Filter variants" aria-label="Filter '
        f'variants">{chips}<button class="chip" id="all">show all</button></div></div>'
        f"<main>{body}<footer>flowzoo. The same numbers: report.md, ranking.csv, results.csv.</footer></main>"
        f"<script>{_library()}</script><script>{(here / 'page.js').read_text()}</script>"
        "</body></html>\n"
    )


@cache
def _library() -> str:
    """Vega-Embed, Vega-Lite and Vega as one script."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


class _Section:
    """One study."""

    def __init__(self, study: Study, id: str, family_colours: Mapping[str, str], pictures: int) -> None:
        self.study, self.id, self.colours, self.pictures = study, id, family_colours, pictures
        self.charts = Charts(study, family_colours)
        protocol = study.key[2]
        self.title = study.title + (f" (protocol {protocol[:12]})" if protocol else "")

    def html(self) -> str:
        study = self.study
        warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in study.warnings)
        parts = [
            f'<section id="{self.id}"><h2>{escape(study.title)}</h2>',
            self._tiles(),
            warnings,
            "<h3>Ranking</h3>" + self._ranking() + self._unranked(),
            self._scatter(),
            self._steps(),
            self._samples(),
            self._densities(),
            self._losses(),
        ]
        if study.baseline:
            parts.append(
                "<h3>The untrained network</h3><p>The same settings with the initial weights, the same for every "
                "variant of a seed, and never ranked: what any training must beat.</p>" + table(study.baseline)
            )
        facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in study.protocol)
        parts.append(f"<h3>What was run</h3><dl>{facts}</dl>" + table(study.deviations, numeric=False))
        if study.extractor:
            facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in study.extractor.items())
            parts.append(f"<h3>Extractor</h3><p>The network behind FID and CLIP score.</p><dl>{facts}</dl>")
        parts.append("<h3>Runs</h3>" + table(study.status, self.colours) + self._config())
        return "".join(parts) + "</section>"

    def _tiles(self) -> str:
        study, ranked = self.study, self.study.ranking.ranked
        tiles = [(f"{len(ranked)} of {len(study.ranking.entries)}", "variants ranked")]
        if ranked:
            tiles.insert(0, (ranked[0].variant, f"best average rank, {ranked[0].rank_all:.2f}"))
        tiles.append((str(len(study.ranking.settings)), "settings"))
        if study.n_samples:
            tiles.append((" / ".join(f"{n:,}" for n in study.n_samples), "samples a setting"))
        if len(study.ranking.seeds) > 1:
            tiles.append((str(len(study.ranking.seeds)), "seeds"))
        if study.spearman:
            rho, n = study.spearman
            tiles.append((f"{rho:+.2f}", f"Spearman correlation with the paper’s order, n = {n}"))
        made = "".join(
            f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles
        )
        return f'<div class="tiles">{made}</div>'

    def _ranking(self) -> str:
        study = self.study
        headline = study.settings[0] if study.settings else None
        with_paper = bool(study.paper)
        # a column without any number would only ask why it is there
        columns = [
            (name, label)
            for name, label in (
                ("rank_all", "all settings"), ("rank_5_steps", "5 steps"), ("rank_50_steps", "50 steps, g = 5"),
                ("rank_50_all", "50 steps, all"))
            if any(getattr(e, name) is not None for e in study.ranking.ranked)
        ]  # fmt: skip
        head = [("#", True), ("variant", False), *((label, True) for _, label in columns)]
        head += [("FID", True), ("CLIP", True)] if headline else []
        head += [("paper: all", True), ("paper: 5", True), ("paper: 50", True)] if with_paper else []
        rows = []
        for place, entry in enumerate(study.ranking.ranked, 1):
            cells = [_td(place, str(place)), self._name(entry)]
            for name, _ in columns:
                value = getattr(entry, name)
                se = entry.rank_all_se if name == "rank_all" else None
                spread = f' <span class="se">± {se:.2f}</span>' if se is not None else ""
                cells.append(_td(value, f"{value:.2f}{spread}" if value is not None else ""))
            if headline:
                found = study.scores[headline].get(entry.variant, [])
                for metric in ("fid", "clip"):
                    mean = sum(getattr(r, metric) for r in found) / len(found) if found else None
                    cells.append(_td(mean, number(mean)))
            if with_paper:
                ranks = study.paper.get(entry.variant, (None, None, None))
                cells += [_td(r, f"{r:.2f}" if r is not None else "", "n p") for r in ranks]
            rows.append(f"<tr {self._tags(entry.variant)}>{''.join(cells)}</tr>")
        if not rows:
            return "<p>No run has scores yet.</p>"
        heads = "".join(f'<th data-sort class="{"n" if numeric else ""}">{escape(text)}</th>' for text, numeric in head)
        said = [f"FID and CLIP at {study.label(headline)}."] if headline else []
        if len(study.ranking.seeds) > 1:
            said.append(f"± is the standard error over {len(study.ranking.seeds)} seeds, each ranked on its own.")
        if with_paper:
            said.append("The paper’s ranks (Table 1) are among 61 formulations: compare them in order only.")
        return (
            f'<div class="scroll"><table class="ranking"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
            f'</table></div><p class="muted">{escape(" ".join(said))} Click a heading to sort.</p>'
        )

    def _unranked(self) -> str:
        study = self.study
        late = [e.variant for e in study.ranking.ranked if e.diverged]
        out = f'<p class="muted">Diverged, last front + 1: {escape(", ".join(late))}.</p>' if late else ""
        if study.ranking.unranked:
            rows = [(e.variant, e.reason) for e in study.ranking.unranked]
            out += "<p>Not ranked:</p>" + table(Table(("Variant", "Why"), rows), self.colours)
        return out

    def _scatter(self) -> str:
        if not self.study.ranking.settings:
            return ""
        spec, labels = self.charts.scatter()
        intro = "Lines join the variants of one front; the strong one is front 1. Best is the upper left."
        return self._figure("CLIP score against FID", intro, [("scatter", spec)], labels, "Setting")

    def _steps(self) -> str:
        fid, clip = (
            self.charts.against_steps(m, t) for m, t in (("fid", "FID (lower)"), ("clip", "CLIP score (higher)"))
        )
        if fid is None or clip is None:
            return ""
        intro = "As the paper’s Fig. 3. Strong lines are the best variant of each family."
        return self._figure(
            "Scores against sampling steps", intro, [("fid-steps", fid[0]), ("clip-steps", clip[0])], fid[1], "Settings"
        )

    def _densities(self) -> str:
        specs = self.charts.densities()
        if not specs:
            return ""
        intro = "Where training spends its draws. Two laws compare over log-SNR, whatever the schedule."
        return self._figure("Timestep densities", intro, list(zip(("density-t", "density-snr"), specs, strict=True)))

    def _losses(self) -> str:
        found = self.charts.losses()
        if found is None:
            return ""
        intro = "Losses of different targets (velocity, eps, v, F) do not compare with each other."
        return self._figure("Loss curves", intro, [("loss", found[0])], found[1], "Loss")

    def _figure(
        self, title: str, intro: str, specs: Sequence[tuple[str, Any]], labels: Sequence[str] = (), asks: str = ""
    ) -> str:
        ids = [f"{self.id}-{name}" for name, _ in specs]
        choice = ""
        if len(labels) > 1:
            options = "".join(f'<option value="{i}">{escape(text)}</option>' for i, text in enumerate(labels))
            choice = f'<label>{asks} <select data-charts="{" ".join(ids)}">{options}</select></label>'
        elif labels:
            choice = f"<p class=muted>{asks}: {escape(labels[0])}</p>"
        charts = "".join(
            f'<figure><div class="chart" data-spec="{id}"></div></figure>'
            f'<script type="application/json" id="{id}">{_json(spec)}</script>'
            for id, (_, spec) in zip(ids, specs, strict=True)
        )
        return f'<h3>{escape(title)}</h3><p>{escape(intro)}</p>{choice}<div class="pair">{charts}</div>'

    def _samples(self) -> str:
        study = self.study
        order = {entry.variant: i for i, entry in enumerate(study.ranking.entries)}
        runs = sorted((run for run in study.runs if run.grid), key=lambda r: (r.seed, order.get(r.variant, len(order))))
        grids = {run.variant: run.grid for run in reversed(runs) if run.grid}
        pictures = thumbnails({name: grids[name] for name in sorted(grids, key=lambda n: order.get(n, len(order)))},
                              self.pictures)  # fmt: skip
        if not pictures:
            return ""
        prompts = next((run.prompts for run in runs if run.prompts), [])
        ranks = {e.variant: e.rank_all for e in study.ranking.ranked}
        made = "".join(
            f"<figure {self._tags(name)}><figcaption>{self._dot(name)}"
            + (f' <span class="se">rank {ranks[name]:.2f}</span>' if ranks.get(name) else "")
            + f'</figcaption><img loading="lazy" alt="Samples of {escape(name)}" src="{uri}"></figure>'
            for name, uri in pictures.items()
        )
        told = "".join(f"<li>{escape(prompt)}</li>" for prompt in prompts)
        said = f"<details><summary>Prompts, row by row</summary><ol class=prompts>{told}</ol></details>" if told else ""
        return (
            "<h3>Samples</h3><p>The same start noise and the same prompts for every variant, best ranked first.</p>"
            f'{said}<div class="samples">{made}</div>'
        )

    def _config(self) -> str:
        same, differ = shared_config(self.study.runs)
        if not same:
            return ""
        text = escape(yaml.safe_dump(same, sort_keys=True, width=110, allow_unicode=True))
        different = escape("\n".join(f"{key}: {' | '.join(values)}" for key, values in sorted(differ.items())))
        return (
            f"<details><summary>Config, as far as all runs share it</summary><pre>{text}</pre></details>"
            f"<details><summary>Config keys in which runs differ</summary><pre>{different}</pre></details>"
        )

    def _name(self, entry: Entry) -> str:
        return f'<td class="v">{self._dot(entry.variant)}</td>'

    def _dot(self, variant: str) -> str:
        return f'<span class="dot" style="--family:{self.colours[family(variant)]}"></span>{escape(variant)}'

    def _tags(self, variant: str) -> str:
        return f'data-variant="{escape(variant)}" data-family="{escape(family(variant))}"'


def table(content: Table, family_colours: Mapping[str, str] | None = None, numeric: bool = True) -> str:
    """A table; with colours its first column is a variant, and its rows follow the page's filter."""
    right = [numeric and i > 0 and _is_numeric([row[i] for row in content.rows]) for i in range(len(content.header))]
    sort = " data-sort" if family_colours is not None else ""
    head = "".join(
        f'<th{sort} class="{"n" if n else ""}">{escape(h)}</th>' for h, n in zip(content.header, right, strict=True)
    )
    rows = []
    for row in content.rows:
        cells = [f'<td class="{"n" if n else ""}">{escape(c)}</td>' for c, n in zip(row, right, strict=True)]
        tags = ""
        if family_colours is not None:
            name = family(row[0])
            tags = f' data-variant="{escape(row[0])}" data-family="{escape(name)}"'
            cells[0] = (
                f'<td class="v"><span class="dot" style="--family:{family_colours[name]}"></span>{escape(row[0])}</td>'
            )
        rows.append(f"<tr{tags}>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _is_numeric(texts: Sequence[str]) -> bool:
    said = [text for text in texts if text]
    return bool(said) and all(text[0] in "-+.0123456789?" for text in said)


def _td(value: float | None, html: str, style: str = "n") -> str:
    return f'<td class="{style}" data-v="{"" if value is None else value}">{html}</td>'


def _json(spec: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(spec, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
