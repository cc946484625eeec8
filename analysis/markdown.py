"""The report as Markdown: the same tables, without charts."""

from collections.abc import Iterable, Sequence

from analysis.against import Against
from analysis.objectives import listed
from analysis.others import other_scores
from analysis.overview import Overview
from analysis.paper import CITATION
from analysis.ranked import Ranked, columns, text_cell
from analysis.searches import Search
from analysis.study import Study
from analysis.tables import Table, escape
from analysis.tables import markdown as table


def markdown(
    studies: Sequence[Study], title: str, searches: Sequence[Search] = (), swept: Sequence[Against] = ()
) -> str:
    """The whole report."""
    parts = [
        f"# {escape(title)}",
        f"Average front over settings by non-dominated sorting{sorted_on(studies)}; 1 is best. After "
        f"{CITATION}. The page with charts and samples: report.html.",
    ]
    if len((all_of := Overview(studies)).compared) > 1:
        parts += [
            "## The best and the worst",
            table(all_of.ends),
            "## Every variant in every study",
            table(all_of.ranks),
        ]
        if all_of.with_paper:
            words = "Correlation of ranks with Table 1, 95 % intervals from drawing the variants anew."
            parts += ["## The paper's order", words, table(all_of.with_paper)]
        if all_of.with_each_other:
            parts += ["## Whether the studies agree with each other", "Spearman.", table(all_of.with_each_other)]
    for one in swept:
        for part in (part for part in one.parts if part.tells):
            named = ", ".join(filter(None, (one.where, part.name)))
            parts += [f"## Against {escape(one.key)}: {escape(named)}", escape(part.best.told), table(part.best.table)]
    for study in studies:
        parts += [f"## {escape(study.title)}", *(f"> {escape(text)}" for text in study.warnings), ranking(study)]
        if found := study.agreement:
            told = f"Spearman {found.spearman}, Kendall {found.kendall}, n = {found.n}"
            parts.append(f"Correlation with the paper's order (Table 1), 95 % intervals over variants: {told}.")
        if study.ranking.unranked:
            rows = [(e.variant, e.reason) for e in study.ranking.unranked]
            parts += ["### Not ranked", table(Table(("Variant", "Why"), rows))]
        if others := other_scores(study):
            judges = "".join(f" Its judge: {judge}." for judge in others.judges)
            told = f"In the setting of the pictures ({others.setting}), means over seeds.{judges}"
            parts += ["### Other scores", escape(told), table(others.table)]
        if study.baseline:
            parts += ["### The untrained network", table(study.baseline)]
        parts += ["### What was run", _listed(study.protocol)]
        parts += [table(study.deviations)]
        if study.extractor:
            parts += ["### Extractor", _listed(study.extractor.items())]
        parts += ["### Runs", table(study.status)]
    for search in searches:
        parts += [f"## {escape(search.title)}", f"{search.counts()}. The Pareto front:", table(search.table())]
    return "\n\n".join(part for part in parts if part) + "\n"


def sorted_on(studies: Sequence[Study]) -> str:
    """The objectives of a report, the same for all of its studies."""
    return f" on {listed(o.said for o in studies[0].objectives)}" if studies else ""


def ranking(study: Study) -> str:
    """The ranking beside the paper's Table 1, whose ranks are among 61 and compare in order only."""
    names, places = columns(Ranked(study.ranking, study.results)), study.ranking.places
    rows = []
    for entry in study.ranking.ranked:
        cells = [places.get(entry.variant, "") if name == "place" else text_cell(entry, name) for name in names]
        rows.append([*cells, *(f"{r:.2f}" for r in study.paper.get(entry.variant, ()))] + [""] * 3)
    header = (*names, "paper: all", "paper: 5 steps", "paper: 50 steps")
    if not rows:
        return study.unranked_because + (f"\n\n{table(study.partial_scores)}" if study.partial_scores else "")
    return table(Table(header, [row[: len(header)] for row in rows]))


def _listed(facts: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in facts)
