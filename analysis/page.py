"""The HTML page of a report: one file that loads nothing, with its charts, pictures, style and scripts inside."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import yaml
from altair.utils.schemapi import debug_mode

from analysis.against import Against
from analysis.canvas import MOST
from analysis.charts import Charts
from analysis.families import colours
from analysis.markdown import sorted_on
from analysis.markup import Figures, Marks, folded, table
from analysis.objectives import listed
from analysis.others import other_scores
from analysis.outputs import GENERATOR
from analysis.overview import labels
from analysis.overview_page import maps, overview
from analysis.paper import CITATION
from analysis.ranking_table import ranking
from analysis.search_section import search_section
from analysis.searches import Search
from analysis.seed_charts import attainment, intervals
from analysis.study import Study, shared_config
from analysis.swept_section import swept_section
from analysis.thumbnails import thumbnails

PICTURES = 3_000_000  # bytes of sample pictures, which with the chart library keeps the page under 5 MB
MOST_LINKS = 12  # shown before they are asked for
# The browser itself refuses anything from a network.
POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


def page(
    studies: Sequence[Study],
    title: str,
    searches: Sequence[Search] = (),
    swept: Sequence[Against] = (),
    figures: Figures | None = None,
) -> str:
    """The whole report. Its charts join `figures`."""
    figures = Figures() if figures is None else figures
    # A chart is not checked at every step of its making (`Canvas.finish` says more).
    with debug_mode(False), ThreadPoolExecutor(1) as pool:  # the library is a second of work
        library = pool.submit(_library)
        family_colours = colours(entry.variant for study in studies for entry in study.ranking.entries)
        sections = [
            _Section(s, f"s{i}", family_colours, PICTURES // len(studies), figures) for i, s in enumerate(studies)
        ]
        first = overview(studies, [section.id for section in sections], family_colours, figures)
        body = first + swept_section(swept, family_colours, figures)
        body += "".join(section.html(len(studies) == 1) for section in sections)
        body += "".join(search_section(search, f"search{i}", figures) for i, search in enumerate(searches))
    chips = "".join(
        f'<button class="chip" aria-pressed="true" data-family="{escape(name)}" style="--family:{colour}">'
        f'<span class="dot"></span>{escape(name)}</button>'
        for name, colour in family_colours.items()
    )
    here = files("analysis")
    contents = ""
    linked = list(zip((section.id for section in sections), labels(studies), strict=True))
    linked = [] if first else linked  # which has links of its own
    linked += [(f"search{i}", search.title) for i, search in enumerate(searches)]
    if len(studies) + len(searches) > 1 and linked:
        links = " ".join(f'<a href="#{id}">{escape(name)}</a>' for id, name in linked)
        words = "Scores of different data, backbones, protocols and training do not compare."
        contents = f"<nav>{links}</nav><p class=muted>{words}</p>"
        contents = contents if len(linked) <= MOST_LINKS else folded(f"Contents: {len(linked)}", contents)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{GENERATOR}<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{(here / 'page.css').read_text()}</style></head><body>"
        f"<header><div><h1>{escape(title)}</h1>"
        f"<p>Training formulations ranked by non-dominated sorting{escape(sorted_on(studies))}, after "
        f"{escape(CITATION)}: within each setting the Pareto-optimal variants, by means over seeds, form front 1, "
        "without them the next front 2, and so on; a rank is the average front over settings. 1 is best.</p>"
        f"{contents}</div></header>"
        '<div class="filters"><div><input id="search" type="search" placeholder="Filter variants" aria-label="Filter '
        f'variants">{chips}<button class="chip" id="all">show all</button></div></div>'
        f"<main>{body}<footer>flowzoo. The same numbers: report.md, ranking.csv, results.csv.</footer></main>"
        f"<script>{library.result()}</script><script>{(here / 'page.js').read_text()}</script>"
        "</body></html>\n"
    )


@cache
def _library() -> str:
    """Vega-Embed, Vega-Lite and Vega as one script; by a process of its own, as it would hold Python's lock."""
    code = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;'))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8").stdout


class _Section:
    """One study."""

    def __init__(
        self, study: Study, id: str, family_colours: Mapping[str, str], pictures: int, figures: Figures
    ) -> None:
        self.study, self.id, self.pictures, self.figures = study, id, pictures, figures
        self.marks = Marks(family_colours)
        self.charts = Charts(study, family_colours)

    def html(self, alone: bool) -> str:
        """Folded but for the only one of a page."""
        study = self.study
        warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in study.warnings)
        parts = [
            f'<section id="{self.id}"><h2>{escape(study.title)}</h2>' if alone else "",
            self._tiles(),
            warnings,
            "<h3>Ranking</h3>" + ranking(study, self.marks),
            maps([("", study)], self.marks.colours, self.id, self.figures) if alone else "",
            self._intervals(),
            self._scatter(),
            self._attainment(),
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
            parts.append(f"<h3>Extractor</h3><p>The network behind the scores.</p><dl>{facts}</dl>")
        parts.append(folded(f"Runs: {len(study.runs)}", table(study.status, self.marks)) + self._config())
        if alone:
            return "".join(parts) + "</section>"
        return f'<section class="folded">{folded(study.title, "".join(parts), self.id)}</section>'

    def _tiles(self) -> str:
        study, ranked = self.study, self.study.ranking.ranked
        tiles = [(f"{len(ranked)} of {len(study.ranking.entries)}", "variants ranked")]
        if ranked:
            tied = [e.place for e in ranked].count(1) - 1 if ranked[0].place else 0
            said = f", tied with {tied} other{'s' * (tied > 1)}" if tied else ""
            tiles.insert(0, (ranked[0].variant, f"best average rank, {ranked[0].rank_all:.2f}{said}"))
        tiles.append((str(len(study.ranking.settings)), "settings"))
        if study.n_samples:
            tiles.append((" / ".join(f"{n:,}" for n in study.n_samples), "samples a setting"))
        if len(study.ranking.seeds) > 1:
            tiles.append((str(len(study.ranking.seeds)), "seeds"))
        if found := study.agreement:
            rho = found.spearman
            said = f"Spearman correlation with the paper’s order, {rho.low:+.2f} to {rho.high:+.2f}, n = {found.n}"
            tiles.append((f"{rho.value:+.2f}", said))
        made = "".join(
            f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles
        )
        return f'<div class="tiles">{made}</div>'

    def _scatter(self) -> str:
        if not self.study.ranking.settings:
            return ""
        specs, labels = self.charts.scatters()
        first, *others = self.study.objectives
        if len(others) == 1:
            corner = f"{'upper' if others[0].direction == 'max' else 'lower'} {'left' if first.sign > 0 else 'right'}"
            intro = f"Lines join the variants of one front; the strong one is front 1. Best is the {corner}."
        else:
            intro = f"Strong points are on front 1, which all {len(others) + 1} objectives decide together."
        if len(self.study.ranking.seeds) > 1:
            intro += " Points are means over seeds, bars their standard errors."
        if self.study.ranking.unranked:
            intro += " Hollow points lack some setting or seed."
        title = f"{listed(o.label for o in others)} against {first.label}"
        return self._figure(title, intro, [(f"scatter-{i}", spec) for i, spec in enumerate(specs)], labels, "Setting")

    def _intervals(self) -> str:
        spec = intervals(self.charts)
        if spec is None:
            return ""
        intro = (
            "95 % intervals by resampling seeds. The number is the place: 1 + how many rank before it beyond noise; "
            "= marks ties. Filled: nobody is before it."
        )
        return self._figure("Ranks and their noise", intro + self._first(), [("intervals", spec)])

    def _attainment(self) -> str:
        found = attainment(self.charts) if self.study.ranking.settings else None
        if found is None:
            return ""
        first, second, *others = self.study.objectives
        intro = (
            f"Which {first.label} and {second.label} a variant reaches with some number of steps and guidance: in one "
            "of its seeds, in half of them, in every one. The narrower the band, the less luck in it."
        )
        if others:
            intro += f" {listed(o.label for o in others)} {'is' if len(others) == 1 else 'are'} left out."
        return self._figure(
            "Attainment surfaces", intro + self._first(), [("attainment", found[0])], found[1], "Variant"
        )

    def _first(self) -> str:
        """Said of charts that leave variants out."""
        n = len(self.study.ranking.entries)
        return f" The first {MOST} of {n} variants." if n > MOST else ""

    def _steps(self) -> str:
        found = [chart for o in self.study.objectives if (chart := self.charts.against_steps(o))]
        if not found:
            return ""
        intro = "As the paper’s Fig. 3. Strong lines are the best variant of each family."
        if self.study.ranking.unranked:
            intro += " Dashed lines lack some setting or seed."
        intro += self._first()
        specs = [(f"steps-{i}", spec) for i, (spec, _) in enumerate(found)]
        return self._figure("Scores against sampling steps", intro, specs, found[0][1], "Settings")

    def _densities(self) -> str:
        specs = self.charts.densities()
        if not specs:
            return ""
        intro = "Where training spends its draws. Two laws compare over log-SNR, whatever the schedule."
        return self._figure(
            "Timestep densities", intro + self._first(), list(zip(("density-t", "density-snr"), specs, strict=True))
        )

    def _losses(self) -> str:
        found = self.charts.losses()
        if found is None:
            return ""
        intro = "Losses of different targets (velocity, eps, v, F) do not compare with each other."
        return self._figure("Loss curves", intro + self._first(), [("loss", found[0])], found[1], "Loss")

    def _figure(
        self, title: str, intro: str, specs: Sequence[tuple[str, Any]], labels: Sequence[str] = (), asks: str = ""
    ) -> str:
        return self.figures.draw(self.id, title, intro, specs, labels, asks)

    def _samples(self) -> str:
        study = self.study
        order = {entry.variant: i for i, entry in enumerate(study.ranking.entries)}
        runs = sorted((run for run in study.runs if run.grid), key=lambda r: (r.seed, order.get(r.variant, len(order))))
        grids = {run.variant: run.grid for run in reversed(runs) if run.grid}
        best_first = sorted(grids, key=lambda name: order.get(name, len(order)))[:MOST]
        pictures = thumbnails({name: grids[name] for name in best_first}, self.pictures)
        if not pictures:
            return ""
        prompts = next((run.prompts for run in runs if run.prompts), [])
        ranks = {e.variant: e.rank_all for e in study.ranking.ranked}
        made = "".join(
            f"<figure {self.marks.tags(name)}><figcaption>{self.marks.dot(name)}"
            + (f' <span class="se">rank {ranks[name]:.2f}</span>' if ranks.get(name) else "")
            + f'</figcaption><img loading="lazy" alt="Samples of {escape(name)}" src="{uri}"></figure>'
            for name, uri in pictures.items()
        )
        told = "".join(f"<li>{escape(prompt)}</li>" for prompt in prompts)
        said = f"<details><summary>Prompts, row by row</summary><ol class=prompts>{told}</ol></details>" if told else ""
        return (
            "<h3>Samples</h3><p>The same start noise and the same prompts for every variant, best ranked first."
            f"{self._first()}</p>"
            f'{said}<div class="samples">{made}</div>{self._others()}'
        )

    def _others(self) -> str:
        found = other_scores(self.study)
        if found is None:
            return ""
        judges = "".join(f" Its judge: {escape(judge)}." for judge in found.judges)
        told = f"What else was measured in the setting of the pictures ({escape(found.setting)}), means over seeds."
        return f"<h3>Other scores</h3><p>{told}{judges}</p>{table(found.table, self.marks)}"

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
