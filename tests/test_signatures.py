"""What is read from the source is what Python says of the imported class, for every part that a config names."""

from inspect import Parameter, signature

import pytest
import yaml
from hydra.utils import get_object

from flowzoo.paths import conf
from flowzoo.signatures import signature_of


def targets(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["_target_"]} if "_target_" in node else set()
        return own.union(*map(targets, node.values()))
    return set()


NAMED = sorted({t for p in conf().rglob("*.yaml") for t in targets(yaml.safe_load(p.read_text()))})


@pytest.mark.parametrize("target", [target for target in NAMED if target.startswith("flowzoo.")])
def test_read_as_imported(target: str) -> None:
    read, imported = signature_of(target).parameters, signature(get_object(target)).parameters

    def shape(found: object) -> list[tuple[str, object, bool]]:
        return sorted((p.name, p.kind, p.default is Parameter.empty) for p in found.values())  # type: ignore[attr-defined]

    assert shape(read) == shape(imported)


@pytest.mark.parametrize("target", ["flowzoo.backbones.dit.DIT", "flowzoo.nothing.X", "flowzoo", "flowzoo.DiT"])
def test_what_is_not_there_is_said(target: str) -> None:
    with pytest.raises(ValueError, match="there is no"):
        signature_of(target)
