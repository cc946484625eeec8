"""The one reader of our own YAML files: numbers are what they are in Hydra's config files, and text is as it was typed.

PyYAML alone, which follows YAML 1.1, reads 1e-4 as text, 2026_11_26 as a number and 2026-11-26 as a date.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

_STR, _FLOAT = "tag:yaml.org,2002:str", "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9_]*)?|\.[0-9]+(?:_[0-9]+)*)[eE][-+]?[0-9]+$")
_Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times as fast


class _Loader(_Base):  # type: ignore[misc,valid-type]
    """As OmegaConf's loader: floats need no point, there are no dates, and a key stands once in a mapping."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own name)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        known = set()
        for key, _ in node.value:
            if key.tag == _STR and key.value in known:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
            known.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))


def read_yaml(content: str | bytes, is_text: Callable[[str], bool] = lambda key: False) -> Any:
    """The values of a YAML document; None for an empty one. Raises yaml.YAMLError.

    What lies at or below a dotted key of which `is_text` holds is text as it was typed, keys included; null stays None.
    """
    loader = _Loader(content)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _leave_text(node, "", False, is_text, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _leave_text(node: yaml.Node, place: str, inside: bool, is_text: Callable[[str], bool], seen: set[int]) -> None:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{place}.{key.value}" if place else str(key.value)
            if inside:
                _leave_text(key, name, True, is_text, seen)
            _leave_text(value, name, inside or is_text(name), is_text, seen)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _leave_text(child, place, inside, is_text, seen)
    elif inside and node.tag != "tag:yaml.org,2002:null":
        node.tag = _STR
