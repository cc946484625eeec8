"""Captions beside images: who has which, what is left out and told, and what is refused by its line."""

import json
from pathlib import Path

import pytest

from flowzoo.data.archive import open_archive
from flowzoo.data.sidecars import Beside, captions_beside

NAMES = ("a/1.png", "a/2.jpg", "b/3.png", "top.gif")


def read(
    root: Path, files: dict[str, str | bytes], kind: str = "auto", names: tuple[str, ...] = NAMES
) -> Beside | None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    for name, content in files.items():
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    archive = open_archive(root)
    return captions_beside(archive, [f for f in archive.files if f.name in names], kind)


def table(**told: object) -> str:
    return "".join(json.dumps({"file_name": k.replace("__", "/"), "text": v}) + "\n" for k, v in told.items())


ALL = {"a/1.png": "one", "a/2.jpg": "two", "b/3.png": "three", "top.gif": "four"}
JSONL = "".join(json.dumps({"file_name": k, "text": v, "style": 1}) + "\n" for k, v in ALL.items())
CSV = "\ufefffile_name,text\n" + "".join(f'./{k},"{v}"\n' for k, v in ALL.items())
TEXTS = {"a/1.txt": " one\n", "a/2.txt": "two", "b/3.TXT": "\ufeffthree\r\n", "top.txt": "\n\nfour"}


@pytest.mark.parametrize(
    "files", [{"metadata.jsonl": JSONL}, {"metadata.csv": CSV}, TEXTS, TEXTS | {"metadata.jsonl": JSONL}]
)
def test_each_kind_says_the_same(tmp_path: Path, files: dict[str, str]) -> None:
    found = read(tmp_path, files)
    assert found
    assert found.captions == {name: (text,) for name, text in ALL.items()}
    assert sorted(found.files) == sorted(files)
    assert found.passed.lines() == []


def test_nothing_beside_leaves_it_to_the_classes(tmp_path: Path) -> None:
    assert read(tmp_path, {"a/notes.txt": "of no image"}) is None
    assert read(tmp_path, TEXTS, "classes") is None


def test_tables_are_of_their_own_folder(tmp_path: Path) -> None:
    files = {"a/metadata.jsonl": JSONL.replace("a/", ""), "b/metadata.csv": "text,file_name\nthree,3.png\n"}
    found = read(tmp_path, files)
    assert found
    assert set(found.captions) == {"a/1.png", "a/2.jpg", "b/3.png"}
    assert found.captions["b/3.png"] == ("three",)
    assert len(found.passed.names["rows of a/metadata.jsonl whose image is not there"]) == 2


def test_alternatives(tmp_path: Path) -> None:
    rows = table(a__1=["a cat", "", " a  cat ", "kitty"]).replace("a/1", "a/1.png") + JSONL
    found = read(tmp_path, {"metadata.jsonl": rows})
    assert found
    assert found.captions["a/1.png"] == ("a cat", "kitty", "one")
    found = read(tmp_path, {"a/1.txt": "a cat\n\nkitty\na cat\n"}, "text")
    assert found
    assert found.captions == {"a/1.png": ("a cat", "kitty")}


def test_one_text_is_for_all_images_of_its_name(tmp_path: Path) -> None:
    found = read(tmp_path, {"1.txt": "one"}, names=("1.png", "1.jpg"))
    assert found
    assert found.captions == {"1.png": ("one",), "1.jpg": ("one",)}


def test_what_is_missing_or_empty_is_left_out_and_told(tmp_path: Path) -> None:
    files = {"a/1.txt": "one", "a/2.txt": " \n", "b/3.txt": b"caf\xe9", "top.txt": "four"}
    found = read(tmp_path, files)
    assert found
    assert set(found.captions) == {"a/1.png", "top.gif"}
    assert found.passed.lines() == ["captions that are not UTF-8 (1): b/3.txt", "empty captions (1): a/2.txt"]
    found = read(tmp_path, {"metadata.jsonl": JSONL.replace("three", " ") + table(gone="x")}, "metadata")
    assert found
    assert found.passed.lines() == [
        "empty captions (1): b/3.png",
        "rows of metadata.jsonl whose image is not there (1): gone",
    ]


def test_captions_in_utf_16_are_not_read_as_letters_with_zeros(tmp_path: Path) -> None:
    found = read(tmp_path, TEXTS | {"a/1.txt": "a cat".encode("utf-16-le"), "a/2.txt": "a cat".encode("utf-16")})
    assert found
    assert found.passed.lines() == ["captions that are not UTF-8 (2): a/1.txt, a/2.txt"]


def test_only_ends_of_lines_part_captions(tmp_path: Path) -> None:
    found = read(tmp_path, TEXTS | {"a/1.txt": "a\u2028b\rc\r\nd\x0be"})
    assert found
    assert found.captions["a/1.png"] == ("a b", "c", "d e")


def test_few_captions_are_perhaps_not_meant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 of the 4 images .* such as a/1.png; .* captions=text.* captions=classes"):
        read(tmp_path, {"a/1.txt": "one"})
    found = read(tmp_path, {}, "text")
    assert found
    assert found.captions == {"a/1.png": ("one",)}


def test_kinds_that_differ_are_refused(tmp_path: Path) -> None:
    files = {"metadata.jsonl": JSONL, "a/1.txt": "another"}
    with pytest.raises(ValueError, match=r"1 images .* such as a/1.png; allowed: captions=text, captions=metadata"):
        read(tmp_path, files)
    for kind, caption in (("text", "another"), ("metadata", "one")):
        found = read(tmp_path, {}, kind)
        assert found
        assert found.captions["a/1.png"] == (caption,)


BAD: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no JSON": ({"metadata.jsonl": JSONL + "{no}\n"}, r"metadata.jsonl, line 5 is not JSON"),
    "no object": ({"metadata.jsonl": "[1]\n"}, r"line 1 is no JSON object"),
    "no column": (
        {"metadata.csv": "file_name,label\na/1.png,1\n"},
        r"metadata.csv, line 2 has no text; it has .*label",
    ),
    "no name": ({"metadata.jsonl": '{"file_name": 1, "text": "x"}'}, r"line 1: file_name=1"),
    "no text": ({"metadata.jsonl": '{"file_name": "a/1.png", "text": {"en": "x"}}'}, r"line 1: text="),
    "no UTF-8": ({"metadata.csv": b"file_name,text\na/1.png,caf\xe9\n"}, r"metadata.csv cannot be read: .*utf-8"),
    "half a pair": ({"metadata.jsonl": '{"file_name": "a/1.png", "text": "\\ud800"}'}, r"line 1: text="),
    "open quote": ({"metadata.csv": 'file_name,text\na/1.png,"x\na/2.jpg,y\n'}, r"metadata.csv, line 3 is not CSV"),
    "UTF-16": ({"metadata.csv": "file_name,text\n".encode("utf-16-le")}, r"metadata.csv is not UTF-8"),
    "no image": ({"metadata.csv": "file_name,text\ngone.png,x\n"}, r"no image has a caption in metadata.csv; rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_named(tmp_path: Path, case: str) -> None:
    files, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        read(tmp_path, files)


def test_kinds_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"captions=text: .* no <name>.txt"):
        read(tmp_path, {"metadata.jsonl": JSONL}, "text")
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match=r"captions=metadata: .* no metadata.jsonl and no metadata.csv"):
        read(tmp_path, {}, "metadata")
