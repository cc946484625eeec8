"""Charts as files: SVG, PNG and PDF as a page first shows them, with its rule for names that would overlap."""

import csv
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.progress import track

from analysis.markup import Figure, slug
from analysis.outputs import check_outside_runs
from analysis.tables import MARK
from flowzoo.runs.files import csv_text, replace, write_atomically

INDEX = "charts.csv"
COLUMNS = ("file", "figure", "shown", "made_by")
WIDTH = 520  # pixels, of the plot; heights are those of the page
INK = "#1b1f24"
FONT = "Helvetica, Arial, sans-serif"
MOST_CHOICES = 40  # of one chart: of more the first alone
SUFFIXES = (".svg", ".png", ".pdf")
SCALE = 2.5  # pixels of a PNG for each of these
LINES = (0, -14, 14, -28, 28)  # pixels, as in page.js
APART = 13  # pixels between names at the ends of lines, as there
PAPER = '<rect width="100%" height="100%" fill="white"/>'  # of a PNG
_SVG = "http://www.w3.org/2000/svg"


def check_charts(option: str, folder: Path) -> None:
    """Raises ValueError for a folder that holds something other than charts of an earlier command, or lies in a run."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{option} {folder}: this is a file; allowed is a folder")
    check_outside_runs(option, folder)
    if folder.is_dir() and any(folder.iterdir()) and not _is_ours(folder / INDEX):
        raise ValueError(f"{option} {folder}: this folder holds something else; allowed is a new or an empty one")


def _is_ours(index: Path) -> bool:
    return index.is_file() and MARK in index.read_text(errors="replace")[:4000]


def save(figures: Sequence[Figure], folder: Path, program: str) -> int:
    """Write every chart, each choice of it, as .svg, .png and .pdf, and `INDEX`, which says what each is of.

    Returns how many charts there are. Raises RunError or OSError.
    """
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    for old in _written(folder / INDEX):
        for suffix in SUFFIXES:
            (folder / f"{old}{suffix}").unlink(missing_ok=True)
    lines = []
    replace(folder / INDEX, csv_text([COLUMNS, ("", "", "", f"flowzoo {program}")]))
    charts = list(_charts(figures))
    for name, figure, shown, spec in track(charts, "charts", transient=True, disable=not sys.stdout.isatty()):
        svg = tidied(vl_convert.vegalite_to_svg(static(spec)), spec["height"])
        replace(folder / f"{name}.svg", svg)
        on_paper = svg.replace(">", f">{PAPER}", 1)
        made = {"png": vl_convert.svg_to_png(on_paper, scale=SCALE), "pdf": vl_convert.svg_to_pdf(svg)}
        for suffix, content in made.items():
            write_atomically(folder / f"{name}.{suffix}", partial(_put, content))
        lines.append((name, figure.title, shown, f"flowzoo {program}"))
    replace(folder / INDEX, csv_text([COLUMNS, *lines]))
    return len(lines)


def _written(index: Path) -> list[str]:
    """The charts that an earlier command wrote."""
    if not index.is_file():
        return []
    with index.open(newline="") as file:
        return [name for row in csv.DictReader(file) if (name := row.get("file", "")) and slug(name) == name]


def _put(content: bytes, part: Path) -> None:
    part.write_bytes(content)


def _charts(figures: Sequence[Figure]) -> Iterator[tuple[str, Figure, str, dict[str, Any]]]:
    """Each chart in each of its choices: name of the file, figure, what is shown, specification."""
    alone = len({figure.id for figure in figures}) == 1
    for figure in figures:
        labels = list(figure.labels)
        labels = labels if len(labels) <= MOST_CHOICES else labels[:1]
        for name, spec in figure.specs:
            for at, label in enumerate(labels or [""]):
                parts = [name] if alone else [figure.id, name]
                parts += [label] if len(labels) > 1 else []
                yield slug("-".join(parts)), figure, label, chosen(spec, at)


def chosen(spec: Mapping[str, Any], at: int) -> dict[str, Any]:
    """A chart with the page's choice, and the rows of that choice alone."""
    params = [p | {"value": at} if p.get("name") == "at" else p for p in spec.get("params", [])]
    rows = {name: [row for row in own if row.get("at", at) == at] for name, own in spec.get("datasets", {}).items()}
    return {**spec, "params": params, **({"datasets": rows} if rows else {})}


def static(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A chart that no page surrounds: of its own width, ink and font, and with a legend of families."""
    text = json.dumps({**spec, "width": WIDTH}).replace('"currentColor"', f'"{INK}"').replace('"inherit"', f'"{FONT}"')
    own: dict[str, Any] = json.loads(text)
    own.pop("padding", None)  # a page cuts what is wider, a file grows
    present = {row["family"] for rows in own.get("datasets", {}).values() for row in rows if "family" in row}
    if '"name": "ends"' not in text and len(present) > 1:
        _legends(own, present)
    return own


def _legends(node: Any, present: Collection[str]) -> None:
    """Gives every colour of families its legend."""
    if isinstance(node, dict):
        if node.get("field") == "family" and node.get("legend", "") is None and "domain" in node.get("scale", {}):
            shown = [name for name in node["scale"]["domain"] if name in present]
            node["legend"] = {"title": None, "values": shown, "symbolType": "circle", "symbolOpacity": 1, "offset": 12}
        for child in node.values():
            _legends(child, present)
    elif isinstance(node, list):
        for child in node:
            _legends(child, present)


def tidied(svg: str, height: float) -> str:
    """The names in a chart, whose plot is so high, so that none covers another.

    Names of points move a line, and are left out where that does not help; those at the ends of lines move as little
    as they must.
    """
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)
    taken: list[tuple[float, float, float, float]] = []
    for group in root.iter(f"{{{_SVG}}}g"):
        kinds = set(group.get("class", "").split())
        if "ends_marks" in kinds:
            texts = list(group)
            for text, y in zip(texts, spread([_place(text)[1] for text in texts], APART, height), strict=True):
                _move(text, y)
        if not {"names_marks", "names_edge_marks"} & kinds:
            continue
        for text in list(group):
            for shift in LINES:
                box = _box(text, shift)
                if not any(box[0] < o[1] and o[0] < box[1] and box[2] < o[3] and o[2] < box[3] for o in taken):
                    taken.append(box)
                    _move(text, _place(text)[1] + shift)
                    break
            else:
                group.remove(text)
    return ElementTree.tostring(root, encoding="unicode")


def spread(places: Sequence[float], apart: float, height: float) -> list[float]:
    """Places in the same order and so far apart at least, with the least squared moves: isotonic regression.

    Within 0 and the height, as far as there is room.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    blocks: list[tuple[float, int]] = []  # sum and number, of places less their due distance
    for k, i in enumerate(order):
        total, count = places[i] - k * apart, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    last = max(0.0, height - (len(places) - 1) * apart)
    means = [min(max(total / count, 0.0), last) for total, count in blocks for _ in range(count)]
    out = [0.0] * len(places)
    for k, i in enumerate(order):
        out[i] = means[k] + k * apart
    return out


def _move(text: ElementTree.Element, y: float) -> None:
    text.set("transform", f"translate({_place(text)[0]:g},{y:g})")


def _place(text: ElementTree.Element) -> tuple[float, float]:
    x, y = map(float, re.findall(r"-?[\d.]+(?:e-?\d+)?", text.get("transform", "translate(0,0)"))[:2])
    return x, y


def _box(text: ElementTree.Element, shift: float) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of a text, by the width that letters have on average."""
    x, y = _place(text)
    size = float(re.sub(r"[^\d.]", "", text.get("font-size", "11")) or 11)
    width = 0.56 * size * len("".join(text.itertext()))
    left = {"end": x - width, "middle": x - width / 2}.get(text.get("text-anchor", "start"), x)
    return left, left + width, y + shift - 0.8 * size, y + shift + 0.25 * size
