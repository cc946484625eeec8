from pathlib import Path

import pytest

from flowzoo.backbones.size import PAPER_TEXT, SMALL_TEXT, preset, size_of, table
from flowzoo.encoders.text import TextSpec

NAMES = ["crossdit", "dit", "mmdit", "mmdit3", "uvit"]
SMALL = {"channels": 3, "size": (32, 32), "text": SMALL_TEXT}


def parameters(markdown):
    """(backbone, preset, width, depth, parameters) of every row."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if line.startswith("| ")]
    return [row[:5] for row in rows if len(row) == 6 and row[0] != "backbone"]


def test_the_documented_table_is_current():
    document = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text()
    assert parameters(document) == parameters(table())


def test_presets_are_of_equal_size():
    sizes = [size_of(preset(name), **SMALL).parameters for name in NAMES]
    assert max(sizes) < 1.05 * min(sizes)


def test_small_mmdit():
    assert size_of(preset("mmdit"), **SMALL).width == 256
    assert preset("mmdit").depth == 6


@pytest.mark.parametrize(
    ("name", "depth", "width"), [("mmdit", 6, 256), ("mmdit3", 3, 128), ("dit", 4, 192), ("crossdit", 2, 128)]
)
def test_counts_are_the_formulas(name, depth, width):
    """Counted on the meta device against sums by hand; both for one sample."""
    text, channels, shape, p = TextSpec((32, 24), (40, 48), (64, 0)), 3, (32, 24), 4
    w, n, d = width, (shape[0] // p) * (shape[1] // p), depth
    lengths, dims = text.lengths, text.dims
    lines = [(n, channels * p * p, w), (n, w, channels * p * p)]  # (rows, in, out) of every linear layer
    lines += [(length, dim, w) for length, dim in zip(lengths, dims, strict=True)]
    lines += [(1, 256, w), (1, w, w), (1, 64, w), (1, w, w), (1, w, 2 * w)]  # label, pooled, final modulation
    stream = lambda rows: [(1, w, 6 * w), (rows, w, 3 * w), (rows, w, w), (rows, w, 4 * w), (rows, 4 * w, w)]  # noqa: E731
    total = n + sum(lengths)
    norms = 0
    if name == "dit":
        lines += d * stream(total)
        attention = d * total * total
        norms = 2 * d
    elif name == "crossdit":
        lines += d * [*stream(n), (n, w, w), (sum(lengths), w, 2 * w), (n, w, w)]
        attention = d * n * total
        norms = 4 * d
    else:
        texts = [sum(lengths)] if name == "mmdit" else lengths
        lines += d * stream(n)
        for rows in texts:
            lines += (d - 1) * stream(rows) + [(1, w, 2 * w), (rows, w, 2 * w)]
        attention = (d - 1) * total * total + n * total
        norms = 2 * d + len(texts) * (2 * (d - 1) + 1)
    counted = size_of(preset(name, depth=d, width=w), channels=channels, size=shape, text=text)
    assert counted.width == w
    assert counted.parameters == sum(i * o + o for _, i, o in lines) + 64 * norms
    assert counted.flops == sum(2 * rows * i * o for rows, i, o in lines) + 4 * w * attention


def test_the_papers_largest_has_eight_billion():
    config = preset("mmdit", depth=38, width=None, patch_size=2)
    counted = size_of(config, channels=16, size=(128, 128), text=PAPER_TEXT)
    assert counted.width == 38 * 64
    assert counted.parameters == pytest.approx(8.05e9, rel=0.01)


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match=r"'unet' is none of .*'crossdit'"):
        preset("unet")
