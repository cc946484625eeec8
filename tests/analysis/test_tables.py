"""Tables in the forms of files."""

import csv
import io
import re
from pathlib import Path

import pytest

from analysis.tables import Table, check_suffix, document, latex, markdown, text

TABLE = Table(["variant", "rank", "words"], [["rf", "1.00", "a_b & c%"], ["v/cos", "-12.5", ""]], breaks=[1])


def test_text_is_aligned():
    assert text(TABLE).splitlines() == ["variant   rank  words", "rf        1.00  a_b & c%", "v/cos    -12.5"]


def test_latex_has_rules_aligned_columns_and_nothing_that_latex_reads_otherwise():
    lines = latex(TABLE).splitlines()
    assert lines == [
        r"\begin{tabular}{lrl}", r"\toprule", r"variant & rank & words \\", r"\midrule", r"rf & 1.00 & a\_b \& c\% \\",
        r"\midrule", r"v/cos & $-$12.5 &  \\", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    special = latex(Table(["a"], [["\\ & % $ # _ { } ~ ^ ± –"]])).splitlines()[4]
    bare = re.sub(r"\\text\w+\{\}|\\[&%$#_{}]|\$\\pm\$", "", special.removesuffix(r" \\"))
    assert set(bare) <= set(" -")


def test_a_cell_ends_no_row_of_markdown():
    rows = markdown(Table(["a"], [["x|y\nz"]])).splitlines()
    assert rows == ["| a |", "| --- |", r"| x\|y z |"]


def test_the_suffix_says_the_form():
    made = {suffix: document(Path(f"x{suffix}"), "analysis.rank", TABLE, TABLE, ["a note"], "variant,rank\n")
            for suffix in (".csv", ".md", ".tex", ".txt", "")}  # fmt: skip
    assert made[".csv"] == "variant,rank\n"
    assert made[".txt"] == made[""] == f"{text(TABLE)}\na note\n"
    assert markdown(TABLE) in made[".md"]
    assert made[".tex"].endswith(latex(TABLE))
    assert "% a note\n" in made[".tex"]
    assert all("flowzoo analysis.rank" in made[suffix].splitlines()[0] for suffix in (".md", ".tex"))
    assert next(csv.reader(io.StringIO(made[".csv"]))) == ["variant", "rank"]
    with pytest.raises(ValueError, match=r"-o x.docx: allowed are names that end in .csv, .md, .tex, .txt"):
        check_suffix("-o", Path("x.docx"))
