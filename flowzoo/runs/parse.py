"""Hydra's parser of words, which here leaves text as it was typed (flowzoo/runs/text.py says which keys are text).

Of a text, Hydra's grammar decides no more than what it must: `a,b` are several values, quotes are taken off, `null` is
none and `${key}` is another key's value. Everything else is the text itself: numbers, brackets, `~`, any script.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from antlr4 import CommonTokenStream, InputStream
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser, create_functions
from hydra.core.override_parser.overrides_visitor import HydraErrorListener, HydraOverrideVisitor
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException
from hydra.grammar.gen.OverrideLexer import OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser

from flowzoo.runs.text import holds_texts, is_text, typed_key

_TYPED = (OverrideLexer.INT, OverrideLexer.FLOAT, OverrideLexer.BOOL)


class TextParser(OverridesParser):
    """Hydra's parser for all keys but those of text."""

    def parse_rule(self, s: str, rule_name: str) -> Any:
        key = typed_key(s)
        if rule_name != "override" or not (is_text(key) or holds_texts(key)):
            return super().parse_rule(s, rule_name)
        try:
            override = self._untyped(s)
        except HydraException:
            if holds_texts(key) or "=" not in s or "," in s:  # with a comma it may have been meant as several values
                raise
            return self._as_typed(s)
        is_element = override.value_type == ValueType.ELEMENT
        if is_text(key) and is_element and not (override.value() is None or isinstance(override.value(), str)):
            return self._as_typed(s)
        return override

    def _untyped(self, word: str) -> Override:
        """As Hydra parses a word, with numbers and booleans left as text, also as the keys of a mapping."""
        listener = HydraErrorListener()
        lexer = OverrideLexer(InputStream(word))
        lexer.removeErrorListeners()
        lexer.addErrorListener(listener)
        stream = CommonTokenStream(lexer)
        stream.fill()
        for token in stream.tokens:
            if token.type in _TYPED:
                token.type = OverrideLexer.ID
        parser = OverrideParser(stream)
        parser.removeErrorListeners()
        parser.addErrorListener(listener)
        override: Override = HydraOverrideVisitor(self.functions).visit(parser.override())
        override.input_line = word
        override.validate()
        return override

    def _as_typed(self, word: str) -> Override:
        key, _, value = word.partition("=")
        override: Override = super().parse_rule(f"{key}={quoted(value)}", "override")
        override.input_line = word
        return override


def _create(config_loader: ConfigLoader | None = None) -> TextParser:
    return TextParser(create_functions(), config_loader)


# Hydra parses words in several places of its own; all of them must read a text alike.
OverridesParser.create = staticmethod(_create)  # type: ignore[method-assign]


def parse(words: Sequence[str], config_loader: ConfigLoader | None = None) -> list[Override]:
    """Words of a command, parsed. Raises ValueError, with the form that works, for what Hydra's grammar does not take.

    Hydra's loader knows the options that `glob` chooses from.
    """
    parser, parsed = _create(config_loader), []
    for word in words:
        try:
            parsed += parser.parse_overrides([word])
        except HydraException:
            raise ValueError(f"{word}: Hydra cannot read this word; {how_to_quote(word)}") from None
    return parsed


def single(words: Sequence[str]) -> list[Override]:
    """As `parse`, for commands that take one value for each key. Raises ValueError for any other word."""
    overrides = parse(words)
    for override in overrides:
        if override.is_sweep_override() or override.is_add() or override.is_force_add() or override.is_delete():
            advice = f" ({how_to_quote(str(override.input_line))})" if override.is_sweep_override() else ""
            raise ValueError(f"{override.input_line}: allowed is key=value with one value{advice}")
    return overrides


def refuse_several(override: Override) -> None:
    """Raises ValueError where a text was typed with a comma that would make it several."""
    if override.is_sweep_override() and is_text(override.key_or_group):
        word = str(override.input_line)
        raise ValueError(f"{word}: several values are several jobs, which take -m; {how_to_quote(word)}")


def quoted(text: str) -> str:
    """`text` as a value that Hydra's grammar takes as it is."""
    return QuotedString(text, Quote.double).with_quotes()


def how_to_quote(word: str) -> str:
    """How to quote the value of a word, in the form in which a shell takes it."""
    key, equals, value = word.partition("=")
    if not equals:
        return "allowed is key=value"
    if value[:1] in ("[", "{") and not is_text(typed_key(word)):
        return "where the brackets hold text, put it in quotes, or the whole value into a config file"
    return f"where it is text, quote it: {shlex.quote(f'{key}={quoted(value)}')}"
