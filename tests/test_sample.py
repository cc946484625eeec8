"""python -m flowzoo.sample refuses what it could not draw or write."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from flowzoo.runs.limits import OPTION_LIMITS, check_limits
from flowzoo.runs.store import Run
from flowzoo.runs.trained import Trained
from flowzoo.sample import check, negatives_of, prompts_of


def asked(folder: Path, **options: Any) -> Trained:
    given = dict.fromkeys(("prompt", "prompts", "negative", "negatives", "out")) | options
    return Trained(Run(folder), SimpleNamespace(**given), OmegaConf.create())


@pytest.mark.parametrize("out", ["there", "there/", "not_there/", "."])
def test_out_is_no_folder(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match=f"out={out}: .*allowed is the name of a PNG file"):
        check(asked(tmp_path, prompt="a red circle", out=out))
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("out", ["file/new.png", "file/not_there/new.png", "new.jpg", "new", "config.yaml"])
def test_out_that_cannot_be_written_or_is_no_png_is_refused(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"out={out}: .*allowed is"):
        check(asked(tmp_path, prompt="a red circle", out=out))
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize("out", [None, "new.png", "not_there/new.png", "old.png"])
def test_out_is_a_file(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.png").touch()
    check(asked(tmp_path, prompt="a red circle", out=out))


def test_prompts_are_drawn_as_typed(tmp_path):
    odd = ["${oc.env:HOME}", "???", "null", "a\u2028b\x0cc", "a, b='c'"]
    (tmp_path / "odd").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(odd).encode())
    assert prompts_of(asked(tmp_path, prompts=str(tmp_path / "odd"))) == odd
    for prompt in (*odd, "", " "):
        assert prompts_of(asked(tmp_path, prompt=prompt)) == [prompt]


def test_what_is_no_text_is_no_prompt(tmp_path):
    (tmp_path / "image").write_bytes(b"\x89PNG\xff")
    for options in ({"prompt": "\udcff"}, {"prompts": str(tmp_path / "image")}):
        with pytest.raises(ValueError, match=r"prompts?=.*: .*no text; allowed is UTF-8"):
            check(asked(tmp_path, **options))


def test_prompts_come_from_one_place(tmp_path):
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "two").write_text("a red circle\n\n a blue square \n")
    check(asked(tmp_path, prompts=str(tmp_path / "two")))
    for options, words in (
        ({}, "allowed is one of prompt"),
        ({"prompt": "x", "prompts": str(tmp_path / "two")}, "allowed is one of prompt"),
        ({"prompts": str(tmp_path / "none")}, "no such file"),
        ({"prompts": str(tmp_path / "empty")}, "holds no prompt"),
    ):
        with pytest.raises(ValueError, match=words):
            check(asked(tmp_path, **options))


def test_negative_prompts_are_one_or_one_a_prompt(tmp_path):
    two, three = tmp_path / "two", tmp_path / "three"
    two.write_text("a red circle\n\n a blue square \n")
    three.write_text("a\nb\nc\n")
    assert negatives_of(asked(tmp_path, prompt="x")) is None
    assert negatives_of(asked(tmp_path, prompts=str(two), negative="${???}, x")) == ["${???}, x"]
    assert negatives_of(asked(tmp_path, prompt="x", negative="")) == [""]
    assert negatives_of(asked(tmp_path, prompts=str(three), negatives=str(three))) == ["a", "b", "c"]
    for options, words in (
        ({"negative": "x", "negatives": str(two)}, 'allowed is one of negative="..." and negatives=FILE'),
        ({"negatives": str(three)}, "three: 3 negative prompts for 2 prompts; allowed is one for each"),
        ({"negatives": str(tmp_path / "none")}, "negatives=.*no such file"),
        ({"negative": "\udcff"}, "negative=.*no text; allowed is UTF-8"),
    ):
        with pytest.raises(ValueError, match=words):
            check(asked(tmp_path, prompts=str(two), **options))


INF = float("inf")


@pytest.mark.parametrize("interval", [[1, 0.5], [-1, 2], [1], 3, "all", [0, float("nan")], [INF, INF], [True, 2]])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match=r"interval=.*: allowed is null or \[low, high\] of sigma"):
        check_limits({"interval": interval}, OPTION_LIMITS)
    for allowed in (None, [0, INF], [0.2, 5], [1, 1]):
        check_limits({"interval": allowed}, OPTION_LIMITS)
