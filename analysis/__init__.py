"""Ranks and reports. Altair asks for the home folder when it is imported, and a user in a container may have none."""

import os
import tempfile
from pathlib import Path

try:
    Path.home()
except RuntimeError:
    os.environ["HOME"] = tempfile.gettempdir()
