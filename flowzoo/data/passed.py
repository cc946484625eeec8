"""What was passed over while an image set was listed, grouped by the reason, so that people hear of it."""

SHOWN = 3  # names of each group


class Passed:
    """Names of files and folders by reason, such as `empty captions`."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def add(self, reason: str, *names: str) -> None:
        if names:
            self.names.setdefault(reason, []).extend(names)

    def extend(self, other: "Passed") -> None:
        for reason, names in other.names.items():
            self.add(reason, *names)

    def lines(self) -> list[str]:
        """One line a reason: `empty captions (12): a.txt, b.txt, c.txt, ...`."""
        return [f"{reason} ({len(names):,}): {shown(sorted(names))}" for reason, names in sorted(self.names.items())]


def shown(names: list[str]) -> str:
    """The first few of some names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
