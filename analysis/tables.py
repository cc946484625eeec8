"""Tables as people and papers take them: aligned text, Markdown, LaTeX with booktabs, CSV, by the suffix of a file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "flowzoo analysis."  # in the first line of what has no names of columns there
SUFFIXES = (".csv", ".md", ".tex", ".txt")
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; `breaks` are rows before which a new group begins."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    breaks: Sequence[int] = ()

    def right(self) -> list[bool]:
        """Of each column but the first, whether all that it says are numbers."""
        return [i > 0 and is_numeric([row[i] for row in self.rows]) for i in range(len(self.header))]


def is_numeric(texts: Sequence[str]) -> bool:
    said = [text for text in texts if text]
    return bool(said) and all(text[0] in "-+.0123456789?" for text in said)


def check_suffix(option: str, path: Path) -> None:
    """Raises ValueError for a file whose suffix names no form; a name without one, and a device, take plain text."""
    if path.suffix and path.suffix not in SUFFIXES and (path.is_file() or not path.exists()):
        raise ValueError(f"{option} {path}: allowed are names that end in {', '.join(SUFFIXES)}")


def document(path: Path, program: str, plain: Table, titled: Table, notes: Sequence[str], csv: str) -> str:
    """A table with its notes in the form that the suffix of `path` names.

    Its first line says which command wrote it, or the names of its columns: `outputs.check_file` asks.

    Args:
        program: the command.
        plain: by names of columns.
        titled: the same for Markdown and LaTeX, with headings that people read.
        csv: the same for programs.
    """
    if path.suffix == ".csv":
        return csv
    if path.suffix == ".tex":
        told = "".join(f"% {line}\n" for note in notes for line in note.splitlines())
        return f"% flowzoo {program}; needs \\usepackage{{booktabs}}\n{told}{latex(titled)}"
    if path.suffix == ".md":
        told = "".join(f"\n{escape(note)}\n" for note in notes)
        return f"<!-- flowzoo {program} -->\n\n{markdown(titled)}\n{told}"
    return "\n".join([text(plain), *notes]) + "\n"


def text(table: Table) -> str:
    """Aligned columns; the first stands to the left, and so do others that are words."""
    lines = (table.header, *table.rows)
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    left = [not right for right in Table(table.header, table.rows).right()]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in lines
    )


def markdown(table: Table) -> str:
    lines = [[escape(cell) for cell in line] for line in (table.header, *table.rows)]
    lines.insert(1, ["---"] * len(table.header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Text that stays one line of Markdown: it opens no tag or comment, and ends no cell."""
    return re.sub(r"[\\<|]", r"\\\g<0>", " ".join(text.split("\n")))


def latex(table: Table) -> str:
    """A tabular with the rules of booktabs."""
    columns = "".join("r" if right else "l" for right in table.right())
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", _row(table.header), "\\midrule"]
    for at, row in enumerate(table.rows):
        lines += ["\\midrule"] * (at > 0 and at in table.breaks) + [_row(row)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(re.sub(r"^-(?=[\d.])", "$-$", _escaped(cell)) for cell in cells) + " \\\\"


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(cell.split()))
