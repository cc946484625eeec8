"""What a report says of all its studies together: the best and the worst of each, and whether their orders agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from analysis.agreement import Agreement, agreement
from analysis.ranking import Entry
from analysis.study import Study
from analysis.tables import Table
from analysis.words import telling

EXTREMES = 3  # shown first of each study, at either end
# What names a study, in this order.
AMONG = ("dataset", "representation", "backbone", "training", "sweep", "protocol", "data")


@dataclass(frozen=True)
class Overview:
    """The studies of a report.

    Compared are the rankings of most variants: of each data set, representation and so on the first one, where it ranks
    at least half as many variants as the largest does, and two. A few variants with other rates would only make the
    table wider.
    """

    studies: Sequence[Study]

    @cached_property
    def compared(self) -> list[Study]:
        first: dict[tuple[str, ...], Study] = {}
        for study in self.studies:
            if len(study.ranking.ranked) > 1:
                first.setdefault(study.key, study)
        most = max((len(study.ranking.ranked) for study in first.values()), default=0)
        return [study for study in first.values() if 2 * len(study.ranking.ranked) >= most]

    @cached_property
    def _telling(self) -> list[str]:
        """The columns that tell the studies apart, no more of them than needed."""
        rows = [{name: study.told(name) for name in AMONG} for study in self.compared]
        return telling(AMONG, rows) or list(AMONG[:1])

    def label(self, study: Study) -> str:
        """What tells a study from the others, in a few words."""
        return " · ".join(filter(None, (study.told(column) for column in self._telling))) or study.title

    @cached_property
    def order(self) -> list[str]:
        """All variants that are ranked somewhere, the best first by their mean share of variants before them."""
        shares: dict[str, list[float]] = {}
        for study in self.compared:
            for i, entry in enumerate(study.ranking.ranked):
                shares.setdefault(entry.variant, []).append(i / len(study.ranking.ranked))
        # of several studies those first that are ranked in all
        return sorted(shares, key=lambda v: (-len(shares[v]), sum(shares[v]) / len(shares[v]), v))

    @cached_property
    def ranks(self) -> Table:
        """Each variant's rank in each study that is compared, with its interval."""
        entries = [{e.variant: e for e in study.ranking.ranked} for study in self.compared]
        rows = [[v, *(said(of[v]) if v in of else "" for of in entries)] for v in self.order]
        return Table(["Variant", *map(self.label, self.compared)], rows)

    @cached_property
    def ends(self) -> Table:
        """The best and the worst of each study that is compared, and how sure that is."""
        rows = []
        for study in self.compared:
            told = (", ".join(f"{entry.variant} {said(entry)}" for entry in some) for some in extremes(study))
            rows.append([self.label(study), *told, sureness(study)])
        return Table(["Study", "Best", "Worst", "How sure"], rows)

    @cached_property
    def with_paper(self) -> Table | None:
        """How far each study's order agrees with Table 1's; None where none has enough of its variants."""
        rows = []
        for study in self.studies:
            found = study.agreement
            if found is None:
                continue
            others = (study.agreement_in(f"rank_{n}_steps", f"steps_{n}") for n in (5, 50))
            told = [str(one.spearman) if one else "" for one in others]
            name = f"{self.label(study)}{', ' * bool(study.part)}{study.part}"
            rows.append([name, str(found.n), str(found.spearman), str(found.kendall), *told])
        header = ("Study", "n", "Spearman", "Kendall", "Spearman, 5 steps", "Spearman, 50 steps")
        return Table(header, rows) if rows else None

    @cached_property
    def with_each_other(self) -> Table | None:
        """Spearman's correlation between the orders of each two studies; None where there is one."""
        if len(self.compared) < 2:
            return None
        rows = []
        for study in self.compared:
            found = [self._between(study, other) for other in self.compared]
            rows.append([self.label(study), *(f"{one.spearman.value:+.2f}" if one else "" for one in found)])
        return Table(["", *map(self.label, self.compared)], rows)

    @staticmethod
    def _between(first: Study, second: Study) -> Agreement | None:
        one, other = ({e.variant: e.rank_all for e in study.ranking.ranked} for study in (first, second))
        shared = sorted(one.keys() & other.keys())
        return agreement([one[v] or 0 for v in shared], [other[v] or 0 for v in shared])


def extremes(study: Study) -> tuple[list[Entry], list[Entry]]:
    """The best of a study, the best first, and the worst, the worst last; no variant is both."""
    ranked = study.ranking.ranked
    best = ranked[:EXTREMES]
    return best, ranked[max(len(best), len(ranked) - EXTREMES) :]


def sureness(study: Study) -> str:
    """How sure the ends of a ranking are, in a sentence."""
    ranking = study.ranking
    if not ranking.places:
        return "One seed: no intervals." if len(ranking.seeds) == 1 else "No intervals."
    best, worst = (len(ranking.ranked[end].ties) or "none" for end in (0, -1))
    return f"Of {len(ranking.ranked)}, {best} cannot be told from the best, {worst} from the worst."


def said(entry: Entry) -> str:
    """A rank with its interval."""
    if entry.rank_all is None:
        return ""
    if entry.diverged:
        return f"{entry.rank_all:.2f} (diverged)"
    known = entry.rank_all_low is not None
    return f"{entry.rank_all:.2f}" + (f" ({entry.rank_all_low:.1f}–{entry.rank_all_high:.1f})" if known else "")


def labels(studies: Sequence[Study]) -> list[str]:
    """What tells each study from the others, in a few words."""
    rows = [{name: study.told(name) for name in AMONG} | {"part": study.part} for study in studies]
    told = telling([*AMONG, "part"], rows) or [AMONG[0]]
    said = [" · ".join(filter(None, (row[name] for name in told))) for row in rows]
    return [words or study.title for words, study in zip(said, studies, strict=True)]
