"""docs/design.md: the way from a command to a row is short, and what it names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES, LINES = 12, 10  # at most


def check_defined(path: Path, name: str) -> None:
    """Fails where the file has no such function or class, or the class no such method."""
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in name.split("."):
        (node,) = (n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part)
        body = node.body


def test_the_way_from_a_command_to_a_row() -> None:
    text = (ROOT / "docs/design.md").read_text().split("## From a command to a row\n")[1].split("\n## ")[0]
    steps = re.findall(r"^\d+\. .*(?:\n   .*)*", text, flags=re.M)
    assert 1 < len(steps) <= LINES
    named = set()
    for file, name in re.findall(r"`([\w/]+\.(?:py|yaml))(?:: ([\w.]+))?`", "\n".join(steps)):
        path = next(path for path in (ROOT / file, ROOT / "flowzoo" / file) if path.is_file())
        if path.suffix == ".py":
            named.add(path)
        if name:
            check_defined(path, name)
    assert len(named) <= FILES
