"""Every file once, by its own name; what other programs leave is passed over and told."""

import os
import zipfile
from pathlib import Path

import pytest

from flowzoo.data.archive import Archive, open_archive


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def named(archive: Archive) -> list[str]:
    return [file.name for file in archive.files]


FILES = ("b/1.png", "b/a/2.png", "c/3.png", "0.txt")
LEFT = (
    "__MACOSX/b/1.png",
    "b/._1.png",
    "b/@eaDir/1.png/thumb.jpg",
    "b/Thumbs.db",
    "desktop.ini",
    ".git/x",
    "#recycle/y",
)


@pytest.mark.parametrize("compression", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_are_listed_and_read(tmp_path: Path, compression: int | None) -> None:
    path = tree(tmp_path / "images", *FILES, *LEFT)
    if compression is not None:
        with zipfile.ZipFile(tmp_path / "images.zip", "w", compression) as archive:
            for name in FILES + LEFT:
                archive.write(path / name, name)
        path = tmp_path / "images.zip"
    archive = open_archive(path)
    assert [(f.folder, f.name) for f in archive.files] == [
        ("", "0.txt"), ("a", "b/a/2.png"), ("b", "b/1.png"), ("c", "c/3.png")
    ]  # fmt: skip
    for file in archive.files:
        assert archive.read(file) == file.name.encode()
        with archive.open(file) as stream:
            assert stream.read() == file.name.encode()
        assert file.size == len(file.name)
    assert list(archive.passed.names) == ["left by other programs"]
    assert len(archive.passed.names["left by other programs"]) == len(LEFT)


def test_a_directory_is_read_once_by_its_own_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", "b/1.png", "c/2.png")
    elsewhere = tree(tmp_path / "elsewhere", "3.png")
    (root / "a").symlink_to(root / "b", target_is_directory=True)
    (root / "b/loop").symlink_to(root, target_is_directory=True)
    (root / "d").symlink_to(elsewhere, target_is_directory=True)
    (root / "e").symlink_to(elsewhere, target_is_directory=True)
    archive = open_archive(root)
    assert named(archive) == ["b/1.png", "c/2.png", "d/3.png"]
    assert archive.passed.lines() == ["links to folders that are read already (3): a, b/loop, e"]


def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", "b/1.png")
    (root / "b/2.png").symlink_to(tmp_path / "gone.png")
    (root / "b/3.png").symlink_to(root / "b/3.png")
    archive = open_archive(root)
    assert named(archive) == ["b/1.png", "b/2.png", "b/3.png"]
    for file in archive.files[1:]:
        with pytest.raises(OSError, match=file.name):
            archive.read(file)


def test_pipes_are_passed_over(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", "b/1.png")
    os.mkfifo(root / "b/2.png")
    archive = open_archive(root)
    assert named(archive) == ["b/1.png"]
    assert archive.passed.lines() == ["neither files nor folders (1): b/2.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "images", "b/1.png")
    (root / "b").chmod(0)
    try:
        with pytest.raises(ValueError, match="images/b cannot be listed: Permission denied"):
            open_archive(root)
    finally:
        (root / "b").chmod(0o700)


def test_names_from_windows(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = "cat\\1.png"  # the constructor would change it
        archive.writestr(info, b"1")
    (file,) = open_archive(tmp_path / "w.zip").files
    assert (file.folder, file.name) == ("cat", "cat/1.png")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_entries_of_one_name_the_last_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as zipped:
        for content in (b"old", b"new"):
            zipped.writestr("cat/1.png", content)
    archive = open_archive(tmp_path / "twice.zip")
    (file,) = archive.files
    assert archive.read(file) == b"new"
    assert archive.passed.lines() == ["entries that a later one of the same name replaces (1): cat/1.png"]


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"holds 'caf\\udce9', whose name is not UTF-8; allowed: rename it"):
        open_archive(tmp_path)
