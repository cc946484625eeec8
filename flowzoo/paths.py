"""Where a path leads that a user typed, in a command or in a config file."""

import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """`text` as a path, with a leading `~` or `~name` read as a home folder, which shells do only at a word's start."""
    return Path(os.path.expanduser(text))
