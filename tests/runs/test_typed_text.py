"""A text is what was typed, in commands and in composed configs, whoever parses the words."""

import fnmatch
import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from flowzoo.paths import conf
from flowzoo.runs.check import check_train
from flowzoo.runs.config import compose_jobs, config_loader
from flowzoo.runs.parse import parse, quoted, single
from flowzoo.runs.text import GROUPS, is_text, key_of

AS_TYPED = [
    *("2026_11_26", "12e4567", "2024", "0x1F", "1e-3", "007", "-0", "true", "Nan", "inf"),
    *(
        "größe",
        "фото",
        "写真",
        "~/a b/(x)",
        "it's",
        'a"b',
        "a=b",
        "[a]",
        "{a:b}",
        "f(x)",
        "a {name}!",
        "#ff0000",
        "a\\b",
    ),
]


@pytest.mark.parametrize("text", AS_TYPED)
def test_a_text_is_what_was_typed(text):
    for word in (f"data.source.path={text}", f"data.source.path={quoted(text)}"):
        (override,) = single([word])
        assert override.value() == text
        # Hydra writes overrides out and parses them once more
        again = f"{override.get_key_element()}={override.get_value_element_as_str()}"
        assert OverridesParser.create().parse_override(again).value() == text


@pytest.mark.parametrize("text", [*AS_TYPED, "a,b", "", " a ", "null", "'a'", "\\", "a\\'b\\"])
def test_a_quoted_text_is_what_is_between_the_quotes(text):
    assert parse([f"sweep={quoted(text)}"])[0].value() == text


def test_numbers_elsewhere_stay_numbers():
    values = [override.value() for override in parse(["trainer.steps=1_000", "optimizer.lr=1e-4", "ema.bias=true"])]
    assert values == [1000, 1e-4, True]


def test_commas_are_several_texts_and_null_is_none():
    several, none = parse(["sweep=2024_1,12e4567,true", "extractor.weights=null"])
    assert list(several.sweep_string_iterator()) == ["2024_1", "12e4567", "true"]
    assert none.value() is None


def test_mappings_of_texts_hold_nothing_else():
    (names,) = parse(["data.source.names={0:zero,1_0:[1e3,x],true:null}"])
    assert names.value() == {"0": "zero", "1_0": ["1e3", "x"], "true": None}


@pytest.mark.parametrize("word", ["data.source.path=a,ö", "data.source.path=a,(b"])
def test_what_hydra_cannot_read_is_told_with_what_it_can(word):
    with pytest.raises(ValueError, match=f"^{re.escape(word)}: .*quote it: ") as error:
        parse([word])
    (advised,) = shlex.split(str(error.value).rpartition("quote it: ")[2])
    assert parse([advised])[0].value() == word.partition("=")[2]


@pytest.mark.parametrize("word", ["data.source.path=a, b", "sweep=a,b"])
def test_several_texts_need_a_multirun(word):
    with config_loader() as loader, pytest.raises(ValueError, match="quote it: ") as error:
        compose_jobs(loader, "train", [word], multirun=False)
    (advised,) = shlex.split(str(error.value).rpartition("quote it: ")[2])
    assert parse([advised])[0].value() == word.partition("=")[2]


@pytest.mark.parametrize("multirun", [False, True])
def test_configs_hold_what_was_typed(multirun):
    words = ["sweep=2026_11_26", "runs=12e4567", "data=folder", "data.name=1_0", "data.source.path=20_24"]
    words += ["data.source.names={0:zero}", "data.source.template=a {name}", "extractor.weights=null"]
    with config_loader() as loader:
        (cfg,) = compose_jobs(loader, "train", words, multirun=multirun)
    source = cfg.data.source
    assert (cfg.sweep, cfg.runs, cfg.data.name, source.path) == ("2026_11_26", "12e4567", "1_0", "20_24")
    assert OmegaConf.to_container(source.names) == {"0": "zero"}
    assert (source.template, cfg.extractor.weights) == ("a {name}", None)


def test_options_are_named_by_files(tmp_path):
    (tmp_path / "experiment").mkdir()
    for name in ("2024_01", "größe"):
        (tmp_path / "experiment" / f"{name}.yaml").write_text("# @package _global_\nseed: 7\n")
        with config_loader(str(tmp_path)) as loader:
            (cfg,) = compose_jobs(loader, "train", [f"experiment={name}"], multirun=False)
        assert cfg.seed == 7


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("sweep: 2026_11_26", "sweep=20261126: this is no text"),
        ("runs: 2024", "runs=2024: this is no text"),
        ("sweep: null", "sweep=null: allowed is a name of one folder"),
        ("runs: ''", "runs=: allowed is the name of a folder"),
        ("data: {name: 1e3}", "data.name=1000.0: this is no text"),
        ("extractor: {weights: [a]}", r"extractor.weights=\['a'\]: this is no text"),
    ],
)
def test_a_config_file_that_has_something_else_is_refused(tmp_path, content, words):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    with config_loader(str(tmp_path)) as loader:
        (cfg,) = compose_jobs(loader, "train", ["experiment=mine"], multirun=False)
    with pytest.raises(ValueError, match=words):
        check_train(cfg)


def test_every_group_is_known():
    folders = [folder.relative_to(conf()).as_posix() for folder in conf().rglob("*") if folder.is_dir()]
    assert all(is_text(folder) for folder in folders if folder not in ("metric", "callbacks"))  # lists
    assert all(fnmatch.filter(folders, group) for group in GROUPS)


def test_a_key_is_known_however_it_was_typed():
    assert [key_of(word) for word in ("+a.b=1", "~a", "a/b@c=d=e", "++x=+y=1")] == ["a.b", "a", "a.b", "x"]
