"""Configs as columns of a table."""

from flowzoo.runs.columns import config_columns, is_key, is_training, leaves, swept, trained_apart, tree


def test_columns_are_read_back_as_the_config_that_they_are_of():
    config = {
        "a": {"b": 1, "c": 0.1, "d": None, "e": [1, {"f": "x"}], "g": {}},
        "h": {"i": "true", "j": "1", "k": "", "l": "plain, text", "m": True, "n": "null"},
    }
    cells = leaves(config)
    assert tree(cells) == config
    assert all(isinstance(cell, str) and cell for cell in cells.values())
    assert tree({**cells, "a.b": ""}) == {**config, "a": {k: v for k, v in config["a"].items() if k != "b"}}


def test_what_other_columns_tell_and_where_a_run_lies_is_no_column():
    config = {"runs": "/x", "sweep": "y", "seed": 1, "path": {"a": 1}, "optimizer": {"lr": 1.0}, "sigma_data": 0.5}
    assert config_columns(config) == {"optimizer.lr": "1", "sigma_data": "0.5"}


def test_metrics_and_protocols_are_no_keys():
    assert [is_key(name) for name in ("optimizer.lr", "captions", "fid", "protocol", "protocol.dim")] == [
        *(True, True, False, False, False)
    ]
    assert [is_training(name) for name in ("optimizer.lr", "evaluation.samples", "data.workers", "trainer.steps")] == [
        *(True, False, False, True)
    ]


def test_trainings_are_told_apart_within_a_kind():
    slow, fast, words = {"o.lr": "1", "t.n": "5"}, {"o.lr": "2", "t.n": "5"}, {"o.lr": "1", "t.n": "6"}
    assert trained_apart([(("a",), slow), (("b",), fast), (("c",), words)]) == ["", "", ""]
    told = trained_apart([(("a",), slow), (("a",), fast), (("b",), words), (("a",), {})])
    assert told == ["o.lr=1", "o.lr=2", "o.lr=1", ""]
    assert trained_apart([(("a",), slow), (("a",), fast)], together=["o.lr"]) == ["", ""]


def test_a_value_that_others_are_interpolated_from_is_told_and_forgiven_once():
    runs = [(("a",), {"captions": text, "data.source.captions": text}) for text in ("mix", "terse")]
    assert trained_apart(runs) == ["captions=mix", "captions=terse"]
    for key in ("captions", "data.source.captions"):
        assert trained_apart(runs, together=[key]) == ["", ""]


def test_what_differs_within_a_sweep_is_told_of_each_run():
    slow, fast = ({"optimizer.lr": lr, "trainer.steps": "5", "evaluation.samples": lr} for lr in ("1", "2"))
    assert swept([slow, fast, slow]) == ["optimizer.lr=1", "optimizer.lr=2", "optimizer.lr=1"]
    assert swept([slow, slow]) == ["", ""]


def test_of_parts_of_several_classes_the_class_is_told_and_what_differs_within_one():
    dit = {"backbone._target_": "dit", "backbone.depth": "2", "backbone.heads": "4"}
    uvit = {"backbone._target_": "uvit", "backbone.depth": "2", "backbone.skips": "1"}
    assert swept([dit, uvit]) == ["backbone._target_=dit", "backbone._target_=uvit"]
    deep = [dit, uvit, {**dit, "backbone.depth": "3"}]
    assert [told.split("backbone.depth=")[1] for told in swept(deep)] == ["2", "2", "3"]
