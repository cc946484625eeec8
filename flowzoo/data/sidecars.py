"""Captions that lie beside images: `<name>.txt`, and tables `metadata.jsonl` or `metadata.csv`.

The tables are those of Hugging Face's imagefolder: `file_name`, from the table's own folder, and `text`. An image may
have several captions: the lines of its text file, the rows of a table that name it, or a list as `text`.
"""

import csv
import io
import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowzoo.data.archive import Archive, File, is_text
from flowzoo.data.decoding import UNREADABLE
from flowzoo.data.passed import Passed

KINDS = ("auto", "classes", "text", "metadata")
TABLES = ("metadata.jsonl", "metadata.csv")
_TEXT = ".txt"
_NUL = "\0"  # in no caption, but in UTF-16 that is read as UTF-8

Captions = dict[str, tuple[str, ...]]  # by the image's name


@dataclass
class Beside:
    """The captions of one kind, and which files hold them."""

    captions: Captions = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    passed: Passed = field(default_factory=Passed)


def captions_beside(archive: Archive, images: Sequence[File], kind: str) -> Beside | None:
    """The captions of `kind`, one of KINDS, that lie beside the images; None where images go by their classes.

    `auto` takes what is there. Text files and a table may both be there, as long as they say the same of every image.

    Raises:
        ValueError: a table cannot be read, two kinds differ, `kind` is not there, or less than half of the images have
            a caption and `auto` leaves open whether it is meant.
    """
    if kind == "classes":
        return None
    table = read_tables(archive, images) if kind != "text" else Beside()
    texts = read_texts(archive, images) if kind != "metadata" else Beside()
    if kind == "auto":
        differ = [name for name, told in table.captions.items() if texts.captions.get(name, told) != told]
        if differ:
            raise ValueError(
                f"{len(differ)} images of {archive.path} have another caption in their text file than in "
                f"{table.files[0]}, such as {differ[0]}; allowed: captions=text, captions=metadata"
            )
    if not (table.files or texts.files):
        if kind == "auto":
            return None
        looked = f"no {' and no '.join(TABLES)}" if kind == "metadata" else "no <name>.txt beside an image"
        raise ValueError(f"captions={kind}: {archive.path} holds {looked}")
    both = Beside(texts.captions | table.captions, table.files + texts.files)
    both.passed.extend(table.passed)
    both.passed.extend(texts.passed)
    n = len(both.captions)
    if not n:
        raise ValueError(f"{archive.path}: no image has a caption in {both.files[0]}; {'; '.join(both.passed.lines())}")
    if kind == "auto" and 2 * n < len(images):
        found = "metadata" if table.captions else "text"
        raise ValueError(
            f"{n} of the {len(images)} images of {archive.path} have a caption beside them, such as "
            f"{next(iter(both.captions))}; allowed: captions={found}, which leaves the others out, or captions=classes"
        )
    return both


def read_texts(archive: Archive, images: Sequence[File]) -> Beside:
    """From `<name>.txt` beside `<name>.<suffix>`; each line that is not blank is one caption."""
    named: dict[str, list[str]] = defaultdict(list)
    for image in images:
        named[posixpath.splitext(image.name)[0]].append(image.name)
    out = Beside()
    for file in archive.files:
        stem, suffix = posixpath.splitext(file.name)
        if suffix.lower() != _TEXT or stem not in named:
            continue
        out.files.append(file.name)
        try:
            text = archive.read(file).decode("utf-8-sig")
        except UnicodeDecodeError:
            text = _NUL
        except UNREADABLE:
            out.passed.add("captions that cannot be read", file.name)
            continue
        if _NUL in text:
            out.passed.add("captions that are not UTF-8", file.name)
        elif told := captions_in(text):
            out.captions.update(dict.fromkeys(named[stem], told))
        else:
            out.passed.add("empty captions", file.name)
    return out


def read_tables(archive: Archive, images: Sequence[File]) -> Beside:
    """From every metadata.jsonl and metadata.csv. Raises ValueError, naming the line, for one that is no such table."""
    names = {image.name for image in images}
    told: dict[str, list[str]] = defaultdict(list)
    out = Beside()
    for file in archive.files:
        folder, base = posixpath.split(file.name)
        if base.lower() not in TABLES:
            continue
        out.files.append(file.name)
        where = f"{archive.path}: {file.name}"
        try:
            text = archive.read(file).decode("utf-8-sig")
        except UNREADABLE as error:
            raise ValueError(f"{where} cannot be read: {error}") from error
        rows = _json_rows(text, where) if base.lower().endswith("l") else _csv_rows(text, where)
        for line, row in rows:
            if missing := [column for column in ("file_name", "text") if column not in row]:
                raise ValueError(
                    f"{where}, line {line} has no {missing[0]}; it has {', '.join(map(str, row))}; "
                    "allowed: file_name and text, or captions=text or captions=classes, which do not read it"
                )
            given, caption = row["file_name"], row["text"]
            if not isinstance(given, str):
                raise ValueError(f"{where}, line {line}: file_name={given!r}; allowed: the name of a file")
            name = posixpath.normpath(posixpath.join(folder, given.replace("\\", "/")))
            if name not in names:
                out.passed.add(f"rows of {file.name} whose image is not there", given)
                continue
            lines = caption if isinstance(caption, list) else [caption or ""]
            if not all(isinstance(words, str) and is_text(words) for words in lines):
                raise ValueError(f"{where}, line {line}: text={caption!r}; allowed: a caption or a list of captions")
            told[name] += lines
    for name, lines in told.items():
        if kept := distinct(lines):
            out.captions[name] = kept
        else:
            out.passed.add("empty captions", name)
    return out


def captions_in(text: str) -> tuple[str, ...]:
    """Of a text file: each line that is not blank is one."""
    return distinct(re.split(r"\r\n|\r|\n", text))  # splitlines() would cut at more than ends of lines


def distinct(lines: Sequence[str]) -> tuple[str, ...]:
    """Without blank ones and repetitions, every run of white space as one blank."""
    return tuple(dict.fromkeys(words for line in lines if (words := " ".join(line.split()))))


def captions_of(value: Any) -> tuple[str, ...]:
    """What a cell of a table or of a json has for captions: a text, or the texts of a list; others are passed over."""
    lines = value if isinstance(value, list) else [value]
    return distinct([line for line in lines if isinstance(line, str) and is_text(line)])


def _json_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON allows other line ends inside a text
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}, line {number} is no JSON object with file_name and text")
        yield number, row


def _csv_rows(text: str, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if _NUL in text:
        raise ValueError(f"{where} is not UTF-8: it holds zero bytes")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)  # a quote left open would swallow rows
    try:
        for row in reader:
            row.pop(None, None)  # cells past the last column
            yield reader.line_num, row
    except csv.Error as error:
        line = reader.reader.line_num  # DictReader's own is that of the last whole row
        raise ValueError(f"{where}, line {line} is not CSV: {error}") from None
