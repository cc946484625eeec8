"""Ranks and reports. Altair asks for the home folder when it is imported, and a user in a container may have none."""

from flowzoo.paths import ensure_home

ensure_home()

from analysis.frames import frame  # noqa: E402

__all__ = ["frame"]
