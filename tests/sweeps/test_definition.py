"""Sweep files: what they may say, and the command that they stand for."""

import re
import subprocess
import sys

import pytest
import yaml

from flowzoo.formulation import names
from flowzoo.runs.parse import parse
from sweeps.__main__ import main
from sweeps.definition import Sweep, load, sweep_names


def test_the_named_sweeps():
    assert {"demo", "sd3_61", "sd3_table1"} <= set(sweep_names())
    assert list(load("sd3_61").variants) == list(names.TABLE)
    assert len(set(load("sd3_table1").variants)) == 16
    demo = load("demo")
    families = {names.family(name) for name in demo.variants}
    assert len(set(demo.variants)) >= 6
    assert len(families) >= 4


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_here_can_be_read(name):
    assert all(names.of_a_kind(variant) == variant for variant in load(name).variants)


def test_a_sweep_may_list_the_measured_law_beside_the_61(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("variants: [rf_lognorm_0.00_1.00, rf/spectrum]\n")
    assert load(str(path)).command()[-1] == "variant=rf_lognorm_0.00_1.00,rf_spectrum"


def test_a_sweep_is_one_multirun_command():
    sweep = Sweep("x", ["rf", "edm(0.00,0.60)"], backbones=["dit", "uvit"], seeds=[0, 1], overrides=["trainer.steps=3"])
    assert sweep.command(["seed=7"]) == [
        *('sweep="x"', "seed=0,1", "data=shapes", "backbone=dit,uvit", "variant=rf,edm_0.00_0.60"),
        *("trainer.steps=3", "seed=7"),
    ]


def test_seeds_are_a_number_or_a_list_and_further_keys_are_crossed():
    sweep = Sweep("x", ["rf"], seeds=2, cross={"optimizer.lr": [1e-4, "3e-4"], "data.mean": [None]})
    assert sweep.command(["seeds=[0,5]"]) == [
        *('sweep="x"', "seed=0,1", "data=shapes", "backbone=mmdit", "optimizer.lr=0.0001,3e-4", "data.mean=null"),
        *("variant=rf", "seed=0,5"),
    ]
    assert sweep.command(["seeds=3"])[-1] == "seed=0,1,2"
    assert sweep.command(["engine=stacked"])[-1] == "trainer=stacked"


@pytest.mark.parametrize("word", ["seeds=0", "seeds=-1", "seeds=a", "seeds=[0,-1]", "seeds=[", "engine=many"])
def test_impossible_seeds_and_engines_are_named(word):
    with pytest.raises(ValueError, match=re.escape(word)):
        Sweep("x", ["rf"]).command([word])


BAD = [
    ("variants: [rf]\nbackbone: [dit]", "key backbone: allowed are variants, data, backbones"),
    ("data: [shapes]", "variants is required"),
    ("variants: [rf, rff]", "variant 'rff': allowed are"),
    ("variants: [edm(0.00,0.60)]", "variant 'edm(0.00', '0.60)': allowed are"),  # YAML cuts at the comma
    ("variants: [[rf]]", "variants: ['rf']: allowed is a list of texts"),
    ("variants: [rf]\ndata: [null]", "data: None: allowed is a list of texts"),
    ("variants: [rf]\noverrides: [{a: b}]", "overrides: {'a': 'b'}: allowed is a list of texts"),
    ("variants: [rf]\nvariants: [rf]", "the key variants stands twice"),
    ("variants: some", "variants=some: allowed is a list"),
    ("variants: [rf]\nseeds: 0", "seeds=0: allowed are a number of at least 1"),
    ("variants: [rf]\nseeds: [0, x]", "allowed are a number of at least 1"),
    ("variants: [rf]\ncross: [1]", "cross=[1]: allowed are keys"),
    ("variants: [rf]\ncross: {optimizer.lr: 1}", "cross.optimizer.lr=1: allowed is a list"),
    ("- rf", "allowed are the keys"),
    ("a: [", "while parsing"),
]


@pytest.mark.parametrize(("content", "words"), BAD)
def test_mistakes_in_a_file_are_named(tmp_path, content, words):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"mine\.yaml") as error:
        load(str(path))
    assert words in str(error.value)


def test_a_file_of_ones_own_is_named_by_its_stem(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"variants": ["v/cos"], "seeds": [3]}))
    assert load(str(path)) == Sweep("mine", ["v/cos"], seeds=[3])


def test_text_in_a_file_is_as_typed_and_numbers_are_numbers(tmp_path):
    path = tmp_path / "2026_11_26.yaml"
    path.write_text(
        "variants: [rf]\ndata: [2024_1]\nbackbones: [0x1F]\noverrides: [runs=1e3]\n"
        "cross: {optimizer.lr: [1e-4, 3E-4], data.source.path: [20_24, 'a, b', null],\n"
        "  data.source.names: [{0: zero, 'a b': [1_0, true]}], \n"
        "  evaluation.weights: [[ema, raw]]}"
    )
    sweep = load(str(path))
    assert (sweep.data, sweep.backbones, sweep.name) == (["2024_1"], ["0x1F"], "2026_11_26")
    command = sweep.command()
    assert "optimizer.lr=0.0001,0.0003" in command
    parsed = {override.key_or_group: override for override in parse(command)}
    assert parsed["sweep"].value() == "2026_11_26"
    assert parsed["runs"].value() == "1e3"
    assert [value and value.text for value in parsed["data.source.path"].sweep_iterator()] == ["20_24", "a, b", None]
    assert parsed["data.source.names"].value() == {"0": "zero", "a b": ["1_0", "true"]}
    assert parsed["evaluation.weights"].value() == ["ema", "raw"]


def test_variants_are_named_as_printed_or_as_in_file_names(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("variants: [v_cos, edm_0.00_0.60, rf/cosmap]")
    assert load(str(path)).variants == ["v/cos", "edm(0.00,0.60)", "rf/cosmap"]


def test_list_prints_names(capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.split() == sweep_names()
    assert main(["list", "sd3_61"]) == 0
    assert capsys.readouterr().out.splitlines() == list(names.TABLE)
    assert main(["list", "sd3_62"]) == 2
    assert f"sd3_62: allowed are {', '.join(sweep_names())}" in capsys.readouterr().err


def test_list_in_a_shell_imports_neither_torch_nor_hydra():
    code = (
        "import sys; from sweeps.__main__ import main; main(['list', 'sd3_61']);"
        "print(*{'torch', 'hydra'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
