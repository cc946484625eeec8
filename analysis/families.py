"""One colour a family, the same in every chart and every report."""

from collections.abc import Iterable

from flowzoo.formulation.names import family

# mid tones, legible on white and on near-black
_COLOURS = {
    "rf/lognorm": "#2f80d8", "rf/mode": "#e07b2f", "rf": "#1fa37a", "rf/cosmap": "#cf5b9b", "edm": "#8f6fd1",
    "edm/rf": "#b3982a", "edm/cos": "#7a9a3a", "eps/linear": "#d9484b", "v/linear": "#1ba5bd", "eps/cos": "#a8745a",
    "v/cos": "#7b8a99",
}  # fmt: skip
_OTHERS = ("#5c6bc0", "#26a69a", "#c0843c", "#ab47bc", "#6d8f2b", "#d4706a")


def colours(variants: Iterable[str]) -> dict[str, str]:
    """Colour of every family among the variants, in the order in which they are listed."""
    present = {family(name) for name in variants}
    others = sorted(present - _COLOURS.keys())
    known = {name: colour for name, colour in _COLOURS.items() if name in present}
    return known | {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
