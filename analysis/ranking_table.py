"""The table of ranks on the page, and the list of what has none."""

from collections.abc import Sequence
from html import escape

from analysis.markup import Marks, between, folded, more, table, td
from analysis.objectives import about, listed
from analysis.ranking import Entry
from analysis.study import Study
from analysis.tables import Table
from analysis.words import spread

FIRST, LAST = 10, 5  # shown before the others are asked for
NAMED = 20  # variants of a tie, where the pointer asks
COLUMNS = {
    "rank_all": "all settings",
    "rank_5_steps": "5 steps",
    "rank_50_steps": "50 steps, g = 5",
    "rank_50_all": "50 steps, all",
}


def ranking(study: Study, marks: Marks) -> str:
    """Ranks, the scores at the headline's setting, and the paper's ranks; then what has no rank and why."""
    entries, places = study.ranking.ranked, study.ranking.places
    if not entries:
        scores = table(study.partial_scores, marks) if study.partial_scores else ""
        return f"<p>{escape(study.unranked_because)}</p>" + scores + _unranked(study, marks)
    headline = study.settings[0]
    # a column without any number would only ask why it is there
    columns = [name for name in COLUMNS if any(getattr(e, name) is not None for e in entries)]
    head = ["place" if places else "#", "variant", *(COLUMNS[name] for name in columns)]
    head += [about(metric).label for metric in study.ranking.metrics]
    head += ["paper: all", "paper: 5", "paper: 50"] if study.paper else []
    rows = []
    rest = between(len(entries), (FIRST, LAST))
    for number, entry in enumerate(entries, 1):
        cells = [td(entry.place or number, places.get(entry.variant, str(number)))]
        cells.append(f'<td class="v">{marks.dot(entry.variant)}</td>')
        for name in columns:
            value = getattr(entry, name)
            interval = _interval(entry) if name == "rank_all" else ""
            cells.append(td(value, f"{value:.2f}{interval}" if value is not None else ""))
        score = study.ranking.scores[headline].get(entry.variant)
        for metric in study.ranking.metrics:
            mean = None if score is None or entry.diverged else score.mean.get(metric)  # no mean over all seeds
            cells.append(td(mean, _mean(mean, score.se.get(metric)) if score and mean is not None else ""))
        if study.paper:
            ranks: Sequence[float | None] = study.paper.get(entry.variant, (None, None, None))
            cells += [td(r, f"{r:.2f}" if r is not None else "", "n p") for r in ranks]
        fold = ' class="rest"' if number - 1 in rest else ""
        rows.append(f"<tr{fold} {marks.tags(entry.variant)}>{''.join(cells)}</tr>")
    heads = "".join(f'<th data-sort class="{"" if h == "variant" else "n"}">{escape(h)}</th>' for h in head)
    return (
        f'<div class="scroll"><table class="ranking"><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f'</table></div>{more(len(entries), rest)}<p class="muted">{escape(_said(study))} Click a heading to sort.</p>'
        + _unranked(study, marks)
    )


def _interval(entry: Entry) -> str:
    if entry.rank_all_low is None or entry.rank_all_high is None:
        return ""
    named = ", ".join(entry.ties[:NAMED]) + (" and others" if len(entry.ties) > NAMED else "")
    tied = f"Tied with {len(entry.ties)}: {named}" if entry.ties else "Tied with none"
    said = f"{entry.rank_all_low:.2f}–{entry.rank_all_high:.2f}"
    return f' <span class="se" title="{escape(tied)}">{said}</span>'


def _mean(mean: float, se: float | None) -> str:
    told, plus, error = spread(mean, se).partition(" ± ")
    return f'{told} <span class="se">± {error}</span>' if plus else told


def _said(study: Study) -> str:
    said = [f"{listed(about(metric).label for metric in study.ranking.metrics)} at {study.label(study.settings[0])}."]
    if len(study.ranking.seeds) > 1:
        said.append(f"Means over {len(study.ranking.seeds)} seeds, ± their standard error.")
    elif study.ranking.places:
        said.append("One seed; the noise is that of the variants that have more.")
    if study.ranking.places:
        said.append(
            "Beside the rank its 95 % interval. Place: 1 + how many rank before it beyond the noise of seeds; equal "
            "places (=) are ties."
        )
    if study.paper:
        said.append("The paper’s ranks (Table 1) are among 61 formulations: compare them in order only.")
    return " ".join(said)


def _unranked(study: Study, marks: Marks) -> str:
    late = [e.variant for e in study.ranking.ranked if e.diverged]
    out = f'<p class="muted">Diverged, last front + 1: {escape(", ".join(late))}.</p>' if late else ""
    if study.ranking.unranked:
        rows = [(e.variant, e.reason) for e in study.ranking.unranked]
        out += folded(f"Not ranked: {len(rows)}", table(Table(("Variant", "Why"), rows), marks))
    return out
