"""Numbers as in Hydra's config files, text as it was typed."""

import math

import pytest
import yaml
from omegaconf import OmegaConf

from flowzoo.runs.yamlfile import read_yaml

SCALARS = ["1e-4", "1E5", "1.5e3", ".5e-3", "-3.e+2", "1_0", "0x10", "1e", "e4", "2026-11-26", "1.0", ".inf", "true"]
SCALARS += ["~", "null", "'1e-4'", "no", "1:30", "a b", "3.0e-5", "+1e4", "1_0e2"]


@pytest.mark.parametrize("scalar", SCALARS)
def test_scalars_are_read_as_by_omegaconf(scalar, tmp_path):
    (tmp_path / "x.yaml").write_text(f"a: {scalar}\nb: [{scalar}]\n")
    expected = OmegaConf.to_container(OmegaConf.load(tmp_path / "x.yaml"))
    found = read_yaml((tmp_path / "x.yaml").read_bytes())
    assert repr(found) == repr(expected)


def test_text_is_as_typed():
    content = "t: {0x1: 1e-4, true: [2026_11_26, ~, 'x', &a 01], b: *a}\nn: 1e-4\nsame: *a"
    read = read_yaml(content, lambda key: key == "t")
    assert read["t"] == {"0x1": "1e-4", "true": ["2026_11_26", None, "x", "01"], "b": "01"}
    assert math.isclose(read["n"], 1e-4)


def test_what_is_no_yaml_is_refused():
    assert read_yaml("") is None
    for content in ("a: [", "a: 1\na: 2", b"\xff\xfe\x00", "&a [*a, {b: *c}]"):
        with pytest.raises(yaml.YAMLError):
            read_yaml(content)
