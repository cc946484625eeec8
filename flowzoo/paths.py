"""Where a path leads that a user typed, and where flowzoo's own config groups lie."""

import os
import tempfile
from pathlib import Path


def conf() -> Path:
    """The folder of the config groups: `flowzoo/conf` where flowzoo came as a wheel, else the repository's `conf`."""
    package = Path(__file__).resolve().parent
    return built if (built := package / "conf").is_dir() else package.parent / "conf"


def user_path(text: str | Path) -> Path:
    """`text` as a path, with a leading `~` or `~name` read as a home folder, which shells do only at a word's start."""
    return Path(os.path.expanduser(text))


def ensure_home() -> None:
    """Set HOME to the folder of temporary files where this user has no home folder, as in a container.

    For libraries that ask for one when they are imported.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
