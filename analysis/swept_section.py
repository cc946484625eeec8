"""Swept keys on the page: scores against each, and the best value of each variant."""

from collections.abc import Mapping, Sequence
from html import escape

from analysis.against import Against, Part
from analysis.markup import Figures, Marks, slug, table

ID = "swept"


def swept_section(found: Sequence[Against], colours: Mapping[str, str], figures: Figures) -> str:
    """Nothing where no key is swept."""
    parts = []
    for one in found:
        several = len({other.where for other in found}) > 1
        title = f"Against {one.key}" + (f", {one.where}" if several else "")
        if one.is_numeric and one.measures:
            intro = "Means over seeds. The large point is the best of its line."
            if any(part.best.sure for part in one.parts):
                intro += " Bars: 95 % intervals of ranks, standard errors of scores."
            name = slug(f"{one.key}-{one.where}" if several else one.key)
            labels = [words for words, _, _ in one.measures]
            parts.append(figures.draw(ID, title, intro, [(name, one.chart(colours))], labels, "Shown"))
        else:
            parts.append(f"<h3>{escape(title)}</h3>")
        parts += [_best(part, Marks(colours), len(one.parts) > 1) for part in one.parts if part.tells]
    if not parts:
        return ""
    return f'<section id="{ID}"><h2>Swept keys</h2>{"".join(parts)}</section>'


def _best(part: Part, marks: Marks, is_named: bool) -> str:
    name = f"<p><b>{escape(part.name)}</b></p>" if is_named else ""
    return f'{name}<p class="muted">{escape(part.best.told)}</p>' + table(part.best.table, marks)
