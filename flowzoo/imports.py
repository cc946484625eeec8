"""How torch and Lightning are imported, which takes seconds. No torch."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def swiftly() -> Iterator[None]:
    """For a block that imports: Python's garbage collector rests.

    It would walk the million objects that they make again and again, for a third of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
