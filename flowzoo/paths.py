"""Where a path leads that a user typed, and where flowzoo's own config groups lie."""

import os
from pathlib import Path


def conf() -> Path:
    """The folder of the config groups: `flowzoo/conf` where flowzoo came as a wheel, else the repository's `conf`."""
    package = Path(__file__).resolve().parent
    return built if (built := package / "conf").is_dir() else package.parent / "conf"


def user_path(text: str | Path) -> Path:
    """`text` as a path, with a leading `~` or `~name` read as a home folder, which shells do only at a word's start."""
    return Path(os.path.expanduser(text))
