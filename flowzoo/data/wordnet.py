"""Names of the classes of ImageNet, whose folders are numbers of WordNet: `n01440764` is "tench, Tinca tinca"."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

WORDNET = "wordnet"
_TABLE = Path("data", "_info", "imagenet_synset_to_lemma.txt")  # in timm: a number and its names, a line each


def wordnet(names: str, folders: Iterable[str]) -> dict[str, list[str]]:
    """Of those folders that are numbers of WordNet, the names with their synonyms.

    `names` is what a config says in place of a table. Raises ValueError for another word than `wordnet`, and where no
    folder is such a number.
    """
    if names != WORDNET:
        raise ValueError(f"names={names!r}: allowed are {WORDNET} and {{folder: name}}")
    package = find_spec("timm")  # not imported: it takes seconds
    where = package.submodule_search_locations if package else None
    if not where or not (table := Path(where[0]) / _TABLE).is_file():
        raise ValueError(f"names={WORDNET}: the table of the package timm is missing; allowed: {{folder: name}}")
    rows = (line.split("\t") for line in table.read_text(encoding="utf-8").splitlines())
    known = {number: lemmas.split(", ") for number, lemmas in rows}
    if not (found := {folder: known[folder] for folder in folders if folder in known}):
        raise ValueError(
            f"names={WORDNET}: no folder is a number of WordNet; allowed: class folders such as n01440764/, to which a "
            "flat val set has to be sorted"
        )
    return found
