"""Rankings as tables: for programs, for people, and what must be known beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from analysis.best import Best
from analysis.objectives import about
from analysis.ranking import Entry, Ranking, Score
from analysis.results import GROUP, Results
from analysis.tables import Table, text
from analysis.words import spread
from flowzoo.runs.files import csv_text

RANK_COLUMNS = ("variant", "rank_all", "rank_5_steps", "rank_50_steps", "rank_50_all", "n_settings")
# what several seeds add, in CSV followed by scores: means over settings, of seeds that have all of them
SEED_COLUMNS = ("place", "rank_all_low", "rank_all_high", "n_seeds")
SEED_COLUMNS_CSV = ("rank_all_se", "n_seeds", "rank_all_low", "rank_all_high", "place", "ties")
SCORE_COLUMNS = ("variant", "front", "n_seeds")  # around the scores
TITLES = {
    "variant": "Variant", "rank_all": "Rank", "rank_5_steps": "5 steps", "rank_50_steps": "50 steps, g = 5",
    "rank_50_all": "50 steps", "n_settings": "Settings", "place": "Place", "n_seeds": "Seeds", "sure": "Sure",
    "rank_all_low": "Low", "rank_all_high": "High",
}  # fmt: skip


@dataclass(frozen=True)
class Ranked:
    """A ranking with its rows.

    Args:
        key: the columns that tell it from the others of a command.
        best: where each variant is ranked at its best value of swept keys.
    """

    ranking: Ranking
    results: Results
    key: Mapping[str, str] = field(default_factory=dict)
    best: Best | None = None

    def chosen(self, variant: str) -> dict[str, str]:
        """The values at which a variant is ranked, and how sure they are, by column."""
        if self.best is None:
            return {}
        found, sure = self.best.chosen.get(variant), self.best.sure.get(variant)
        cells = found.cells if found else dict.fromkeys(self.best.keys, "")
        return cells | {"sure": "" if sure is None else f"{sure:.2f}"}

    @property
    def has_seeds(self) -> bool:
        return len(self.ranking.seeds) > 1


def columns(ranked: Ranked) -> tuple[str, ...]:
    """The columns of a printed ranking; those about seeds only where there are several."""
    return RANK_COLUMNS + (SEED_COLUMNS if ranked.has_seeds else ())


def as_csv(all_of: Sequence[Ranked]) -> str:
    """Rankings for programs: numbers with six decimals at most, an empty cell where there is none."""
    lines = []
    for ranked in all_of:
        names = RANK_COLUMNS + (SEED_COLUMNS_CSV if ranked.has_seeds else ())
        for entry in ranked.ranking.entries:
            row = dict(vars(entry), ties=len(entry.ties) if entry.place else None)
            variant, *others = names
            line = {**ranked.key, variant: entry.variant, **ranked.chosen(entry.variant)}
            line |= {name: _cell(row[name]) for name in others}
            lines.append(line | (_scores(ranked.ranking, entry.mean) if ranked.has_seeds else {}))
    return _written(lines)


def scores_as_csv(all_of: Sequence[Ranked]) -> str:
    """Every variant's scores in every setting, averaged over its seeds, with its front there, for programs.

    Where the best value of swept keys is taken, every value's.
    """
    lines = []
    for ranked in all_of:
        ranking, best = (ranked.best.among_all if ranked.best else ranked.ranking), ranked.best
        for setting in ranking.settings:
            front, scores = ranking.fronts[setting], ranking.scores[setting]
            for variant in sorted(scores, key=lambda v: (front[v] is None, front[v] or 0, v)):
                line = dict(zip(ranked.results.columns, setting, strict=True))
                own = best.contenders[variant] if best else None
                line |= {"variant": own.variant, **own.cells} if own else {"variant": variant}
                line["front"] = _cell(front[variant])
                lines.append(line | _scores(ranking, scores[variant]) | {"n_seeds": str(scores[variant].n)})
    return _written(lines)


def _scores(ranking: Ranking, score: Score | None) -> dict[str, str]:
    """The means with their standard errors, by column."""
    out = {}
    for name in ranking.metrics:
        out[name] = _cell(score.mean.get(name) if score else None)
        out[f"{name}_se"] = _cell(score.se.get(name) if score else None)
    return out


def _written(lines: Sequence[Mapping[str, str]]) -> str:
    names = list(dict.fromkeys(name for line in lines for name in line))
    return csv_text([names, *([line.get(name) for name in names] for line in lines)])


def plain(all_of: Sequence[Ranked]) -> Table:
    """The ranked variants for people, by the names of columns."""
    return _table([{**ranked.key, **line} for ranked in all_of for line in _lines(ranked)], all_of)


def titled(all_of: Sequence[Ranked]) -> Table:
    """The same for papers: headings in words, no empty columns, and the scores, means over settings."""
    lines = []
    for ranked in all_of:
        entries = ranked.ranking.ranked
        for entry, line in zip(entries, _lines(ranked), strict=True):
            mean = entry.mean
            told = {about(name).label: spread(mean.mean.get(name), mean.se.get(name)) if mean else ""
                    for name in ranked.ranking.metrics}  # fmt: skip
            lines.append({**ranked.key, **line, **told})
    whole = _table(lines, all_of)
    shown = [i for i in range(len(whole.header)) if not lines or any(row[i] for row in whole.rows)]
    header = [TITLES.get(whole.header[i], whole.header[i]) for i in shown]
    return Table(header, [[row[i] for i in shown] for row in whole.rows], whole.breaks)


def _lines(ranked: Ranked) -> list[dict[str, str]]:
    places = ranked.ranking.places
    variant, *others = columns(ranked)
    return [
        {variant: entry.variant, **ranked.chosen(entry.variant)}
        | {name: places.get(entry.variant, "") if name == "place" else text_cell(entry, name) for name in others}
        for entry in ranked.ranking.ranked
    ]


def _table(lines: Sequence[Mapping[str, str]], all_of: Sequence[Ranked]) -> Table:
    names = list(dict.fromkeys(name for line in lines for name in line))
    names = names or [*(name for ranked in all_of[:1] for name in (*ranked.key, *columns(ranked)))]
    ends = [sum(len(ranked.ranking.ranked) for ranked in all_of[:i]) for i in range(1, len(all_of))]
    return Table(names, [[line.get(name, "") for name in names] for line in lines], ends)


def text_cell(entry: Entry, name: str) -> str:
    value = getattr(entry, name)
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)


def notes(all_of: Sequence[Ranked]) -> list[str]:
    """What a reader must know beside the tables; what is the same for all rankings once."""
    own = [(", ".join(filter(None, ranked.key.values())), _notes(ranked)) for ranked in all_of]
    common = [line for line in (own[0][1] if own else []) if all(line in lines for _, lines in own)]
    rest = [(key, [line for line in lines if line not in common]) for key, lines in own]
    return [*common, *(f"{key}: {line}" if key else line for key, lines in rest for line in lines)]


def _notes(ranked: Ranked) -> list[str]:
    ranking, results, lines = ranked.ranking, ranked.results, []
    if len(ranking.seeds) == 1:
        lines.append("; ".join(["one seed: no intervals", *noise(ranking)]))
    elif any(entry.place is not None for entry in ranking.ranked):
        lines.append(
            "place: 1 + how many rank before it beyond the noise of seeds, so equal places (=) are ties; low and high: "
            "95 % interval"
        )
    elif len(ranking.ranked) > 1:
        lines.append("no intervals: seeds differ in their settings, or fewer than two variants are scored in all")
    if diverged := [entry.variant for entry in ranking.ranked if entry.diverged]:
        lines.append(f"diverged, last front + 1: {', '.join(diverged)}")
    if ranking.unranked:
        lines.append(
            "\n".join(
                [
                    f"not ranked ({len(ranking.unranked)}):",
                    *(f"  {entry.variant}: {entry.reason}" for entry in ranking.unranked),
                ]
            )
        )
    if ranked.best:
        lines += _about(ranked.best)
    if not ranking.ranked:
        varying = [name for name in (*GROUP, "seed") if len(results.values(name)) > 1]
        lines.append(f"no variant has all {len(ranking.settings)} settings of every seed; choose some with --include-…")
        lines += [f"  --include-{name}: {', '.join(results.values(name))}" for name in varying]
    return lines


def _about(best: Best) -> list[str]:
    """What must be known of values that are called the best."""
    keys = ", ".join(best.keys)
    how = "sure: the share of resampled seeds in which it stays the best" if best.sure else "how sure is not known"
    lines = [f"{keys}: the best by the average rank among all variants at all values, means over seeds; {how}"]
    for key, variants in best.at_the_edge.items():
        lines.append(f"best at the smallest or largest {key} tried, so beyond may be better: {', '.join(variants)}")
    lines += [f"left out: {entry.variant}: {entry.reason}" for entry in best.left_out]
    return [*lines, f"average ranks among all (* best):\n{text(best.grid)}"]


def noise(ranking: Ranking) -> list[str]:
    """What is known of the noise of one seed."""
    return [text for objective in ranking.objectives if (text := about(objective.name).noise)]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{round(value, 6):.12g}"
    return "" if value is None else str(value)
