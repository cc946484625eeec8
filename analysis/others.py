"""What was measured beyond the objectives, in the setting that the pictures show."""

from dataclasses import dataclass

from analysis.objectives import about
from analysis.results import natural
from analysis.study import Study
from analysis.tables import Table
from analysis.words import number


@dataclass(frozen=True)
class OtherScores:
    setting: str  # in words
    judges: list[str]  # how good the networks behind these scores are known to be
    table: Table


def other_scores(study: Study) -> OtherScores | None:
    """Means over seeds of every metric that is no objective, a line a variant; None where there is none."""
    objectives = [o.name for o in study.objectives]
    names = [name for name in study.ranking.metrics if name not in objectives]
    if not names or not study.settings:
        return None
    setting = pictured(study)
    scores = study.ranking.scores[setting]
    rows = [
        (entry.variant, *(number(scores[entry.variant].mean.get(name)) for name in names))
        for entry in study.ranking.entries
        if entry.variant in scores
    ]
    judges = [
        f"{key.removeprefix('judges.')}, {told}" for key, told in study.extractor.items() if key.startswith("judges.")
    ]
    header = ("variant", *(about(name).label for name in names))
    return OtherScores(study.label(setting), judges, Table(header, rows))


def pictured(study: Study) -> tuple[str, ...]:
    """The setting whose samples runs keep as their picture: the most steps times guidance, of the average if it is."""

    def order(setting: tuple[str, ...]) -> tuple[bool, float]:
        steps, guidance = (float(natural(study.cell(setting, name))[1]) for name in ("steps", "guidance"))
        return study.cell(setting, "weights") == "ema", steps * guidance

    return max(study.ranking.settings, key=order)
