"""Pieces of HTML that every part of the page is made of."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from analysis.tables import Table
from flowzoo.formulation.names import family


class Marks:
    """How a variant is marked: by its family's colour, and for the page's filter."""

    def __init__(self, family_colours: Mapping[str, str]) -> None:
        self.colours = family_colours

    def dot(self, variant: str) -> str:
        return f'<span class="dot" style="--family:{self.colours[family(variant)]}"></span>{escape(variant)}'

    def tags(self, variant: str) -> str:
        return f'data-variant="{escape(variant)}" data-family="{escape(family(variant))}"'


def table(content: Table, marks: Marks | None = None, numeric: bool = True, ends: tuple[int, int] | None = None) -> str:
    """A table; with marks its first column is a variant, and its rows follow the page's filter.

    Of rows between so many at either end, `ends`, the page asks first.
    """
    right = [numeric and is_right for is_right in content.right()]
    sort = " data-sort" if marks is not None else ""
    head = "".join(
        f'<th{sort} class="{"n" if n else ""}">{escape(h)}</th>' for h, n in zip(content.header, right, strict=True)
    )
    rows = []
    rest = between(len(content.rows), ends)
    for at, row in enumerate(content.rows):
        cells = [f'<td class="{"n" if n else ""}">{escape(c)}</td>' for c, n in zip(row, right, strict=True)]
        tags = ' class="rest"' if at in rest else ""
        if marks is not None:
            tags += " " + marks.tags(row[0])
            cells[0] = f'<td class="v">{marks.dot(row[0])}</td>'
        rows.append(f"<tr{tags}>{''.join(cells)}</tr>")
    made = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    return made + more(len(content.rows), rest)


def between(rows: int, ends: tuple[int, int] | None) -> range:
    """The rows that are folded; none where they are hardly more than those that are shown."""
    return range(ends[0], rows - ends[1]) if ends and rows > sum(ends) + 3 else range(0)


def more(rows: int, rest: range) -> str:
    """What shows the folded rows of the table before it."""
    if not rest:
        return ""
    return f'<button class="chip more">all {rows}, also places {rest.start + 1} to {rest.stop}</button>'


def folded(title: str, html: str, id: str = "") -> str:
    """What is shown when it is asked for."""
    name = f' id="{id}"' if id else ""
    return f"<details{name}><summary>{escape(title)}</summary>{html}</details>"


class Figure(NamedTuple):
    """Charts side by side, each a name and its specification; of several `labels` the page `asks` for one."""

    id: str
    title: str
    specs: Sequence[tuple[str, Any]]
    labels: Sequence[str]


class Figures(list[Figure]):
    """The figures of a page, in their order."""

    def draw(
        self,
        id: str,
        title: str,
        intro: str,
        specs: Sequence[tuple[str, Any]],
        labels: Sequence[str] = (),
        asks: str = "",
        narrow: bool = False,
    ) -> str:
        """One more figure: its HTML."""
        self.append(Figure(id, title, specs, labels))
        ids = [f"{id}-{name}" for name, _ in specs]
        choice = ""
        if len(labels) > 1:
            options = "".join(f'<option value="{i}">{escape(text)}</option>' for i, text in enumerate(labels))
            choice = f'<label>{asks} <select data-charts="{" ".join(ids)}">{options}</select></label>'
        elif labels:
            choice = f"<p class=muted>{asks}: {escape(labels[0])}</p>"
        charts = "".join(
            f'<figure><div class="chart" data-spec="{id}"></div>'
            f'<p class="save"><button data-save="svg">SVG</button> <button data-save="png">PNG</button></p></figure>'
            f'<script type="application/json" id="{id}">{_json(spec)}</script>'
            for id, (_, spec) in zip(ids, specs, strict=True)
        )
        width = "pair narrow" if narrow else "pair"
        return f'<h3>{escape(title)}</h3><p>{escape(intro)}</p>{choice}<div class="{width}">{charts}</div>'


def slug(text: str) -> str:
    """Letters of file names, and of ids on the page."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-").lower()


def _json(spec: Any) -> str:
    """JSON that may stand inside a script element, in ASCII.

    The characters that an HTML parser looks for are written as escapes: besides `</script>`, the text `<!--<script>`
    would keep the element open to the end of the page.
    """
    text = json.dumps(spec, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def td(value: float | None, html: str, style: str = "n") -> str:
    return f'<td class="{style}" data-v="{"" if value is None else value}">{html}</td>'
