"""Types of argparse options that say what is allowed."""

from argparse import ArgumentTypeError
from math import inf, nan


def positive(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text}: allowed is an integer of at least 1")
    return int(text)


def above_zero(text: str) -> float:
    """A finite number greater than 0."""
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not 0 < value < inf:
        raise ArgumentTypeError(f"{text}: allowed is a number greater than 0")
    return value
