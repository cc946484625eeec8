"""Pieces of HTML that every part of the page is made of."""

from collections.abc import Mapping, Sequence
from html import escape

from analysis.study import Table
from analysis.words import number
from flowzoo.formulation.names import family


class Marks:
    """How a variant is marked: by its family's colour, and for the page's filter."""

    def __init__(self, family_colours: Mapping[str, str]) -> None:
        self.colours = family_colours

    def dot(self, variant: str) -> str:
        return f'<span class="dot" style="--family:{self.colours[family(variant)]}"></span>{escape(variant)}'

    def tags(self, variant: str) -> str:
        return f'data-variant="{escape(variant)}" data-family="{escape(family(variant))}"'


def table(content: Table, marks: Marks | None = None, numeric: bool = True) -> str:
    """A table; with marks its first column is a variant, and its rows follow the page's filter."""
    right = [numeric and i > 0 and _is_numeric([row[i] for row in content.rows]) for i in range(len(content.header))]
    sort = " data-sort" if marks is not None else ""
    head = "".join(
        f'<th{sort} class="{"n" if n else ""}">{escape(h)}</th>' for h, n in zip(content.header, right, strict=True)
    )
    rows = []
    for row in content.rows:
        cells = [f'<td class="{"n" if n else ""}">{escape(c)}</td>' for c, n in zip(row, right, strict=True)]
        tags = ""
        if marks is not None:
            tags = " " + marks.tags(row[0])
            cells[0] = f'<td class="v">{marks.dot(row[0])}</td>'
        rows.append(f"<tr{tags}>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _is_numeric(texts: Sequence[str]) -> bool:
    said = [text for text in texts if text]
    return bool(said) and all(text[0] in "-+.0123456789?" for text in said)


def spread(mean: float, se: float | None) -> str:
    """A mean with its standard error, which deserves one digit."""
    if se is None:
        return number(mean)
    told = number(se) if se >= 10 else f"{se:.4f}" if se < 0.001 else f"{se:.1g}"
    return f'{number(mean)} <span class="se">± {told}</span>'


def td(value: float | None, html: str, style: str = "n") -> str:
    return f'<td class="{style}" data-v="{"" if value is None else value}">{html}</td>'
