"""A path in the home folder is found, whoever reads it."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from flowzoo.data.folder import Folder
from flowzoo.metrics.extractor import SHIPPED, Extractor
from flowzoo.paths import ensure_home, user_path


def test_only_a_tilde_at_the_start_is_a_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/mine")
    assert user_path("~/photos (1)") == Path("/home/of/mine/photos (1)")
    assert user_path("a/~/b,~") == Path("a/~/b,~")
    assert user_path("./~") == Path("~")
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_weights_and_images_are_found_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights").symlink_to(SHIPPED)
    assert Extractor("~/weights").identity == Extractor().identity
    with pytest.raises(ValueError, match=f"{tmp_path} holds no images"):
        Folder("train", "~")


def test_a_user_without_a_home_gets_the_folder_of_temporary_files(monkeypatch):
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("HOME", "/home/of/mine")
    ensure_home()
    assert os.environ["HOME"] == "/home/of/mine"
    monkeypatch.delenv("HOME")
    ensure_home()
    assert Path.home() == Path(tempfile.gettempdir())
