"""The first screen of a page with several studies, and the maps of laws over all of them."""

from collections.abc import Mapping, Sequence
from html import escape

from analysis.maps import FAMILIES, Maps
from analysis.markup import Figures, Marks, folded, table
from analysis.overview import Overview, extremes, said, sureness
from analysis.ranking import Entry
from analysis.study import Study

FIRST, LAST = 5, 3  # of all variants, shown before the others are asked for


def overview(studies: Sequence[Study], ids: Sequence[str], family_colours: Mapping[str, str], figures: Figures) -> str:
    """Nothing where fewer than two studies have ranks. `ids` are those of their sections."""
    all_of = Overview(studies)
    if len(all_of.compared) < 2:
        return ""
    marks = Marks(family_colours)
    places = {id(study): place for study, place in zip(studies, ids, strict=True)}
    cards = [_card(all_of, study, places[id(study)], marks) for study in all_of.compared]
    parts = [
        '<section id="overview"><h2>The best and the worst</h2>',
        f'<div class="cards">{"".join(cards)}</div>',
        f'<p class="muted">{escape(_intervals(all_of))}</p>',
        "<h3>Every variant in every study</h3><p>Average ranks, with 95 % intervals where the noise of seeds is known, "
        "ordered by the mean share of variants that rank before it.</p>",
        table(all_of.ranks, marks, ends=(FIRST, LAST)),
    ]
    if all_of.with_paper:
        parts.append(
            "<h3>The paper’s order</h3><p>Correlation of ranks with Table 1, over all settings, with 95 % intervals "
            "from drawing the variants anew. +1 is the same order, 0 none.</p>" + table(all_of.with_paper)
        )
    parts.append(maps([(all_of.label(study), study) for study in all_of.compared], family_colours, "overview", figures))
    if all_of.with_each_other:
        told = "<p>Spearman’s correlation of ranks, over the variants that both rank.</p>"
        parts.append(folded("Whether the studies agree with each other", told + table(all_of.with_each_other)))
    return "".join(parts) + "</section>"


def maps(studies: Sequence[tuple[str, Study]], family_colours: Mapping[str, str], id: str, figures: Figures) -> str:
    """A figure a family of laws, of which the first stands open; a chart a study, under its name."""
    canvases = [(name, Maps(study, family_colours)) for name, study in studies]
    out: list[str] = []
    for i, family in enumerate(FAMILIES):
        found = [(f"map-{i}-{k}", spec) for k, (name, maps) in enumerate(canvases) if (spec := maps.of(family, name))]
        if not found:
            continue
        intro = "The darker, the fewer of all ranked variants are better. The frame is round the best of the family."
        if len(family.parameters) == 1:
            intro = (
                "Bars: 95 % intervals of ranks, standard errors of scores. The large point is the best; s = 0 is rf."
            )
        drawn = figures.draw(id, family.title, intro, found, canvases[0][1].measures, "Shown", narrow=True)
        out.append(folded(f"{family.title} over its parameters", drawn) if out else drawn)
    return "".join(out)


def _card(all_of: Overview, study: Study, section: str, marks: Marks) -> str:
    best, worst = extremes(study)
    count = len(study.ranking.ranked)
    lines = [_line(study, entry, i + 1, marks) for i, entry in enumerate(best)]
    if worst:
        lines.append('<tr class="gap"><td colspan="3">…</td></tr>')
        lines += [_line(study, entry, count - len(worst) + i + 1, marks) for i, entry in enumerate(worst)]
    return (
        f'<div class="card"><h4><a href="#{section}">{escape(all_of.label(study))}</a></h4>'
        f'<table>{"".join(lines)}</table><p class="muted">{escape(sureness(study))}</p></div>'
    )


def _line(study: Study, entry: Entry, number: int, marks: Marks) -> str:
    place = study.ranking.places.get(entry.variant, str(number))
    return (
        f'<tr {marks.tags(entry.variant)}><td class="n">{place}</td><td class="v">{marks.dot(entry.variant)}</td>'
        f'<td class="n">{_rank(entry)}</td></tr>'
    )


def _rank(entry: Entry) -> str:
    rank, _, interval = said(entry).partition(" ")
    return f'{rank} <span class="se">{escape(interval.strip("()"))}</span>'


def _intervals(all_of: Overview) -> str:
    """What the numbers of the cards mean."""
    told = "Place, variant, average rank over the settings with its 95 % interval."
    if any(study.more for study in all_of.compared):
        told += " Where only some variants have further seeds, all rank by the seeds of most; those tell the noise."
    return told + " Equal places (=) are ties. Noise merges fronts, so intervals reach further down than up."
