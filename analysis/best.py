"""The best value of swept keys for each variant, how sure it is, and the ranking among the best."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from analysis.objectives import DEFAULT, Objective
from analysis.ranking import Entry, Ranking, Scored, rank, with_noise
from analysis.resampling import Noise, chosen
from analysis.results import Results, natural
from analysis.swept import Contender
from analysis.tables import Table


@dataclass(frozen=True)
class Best:
    """Each variant at the value with the best average rank among all variants at all values, by means over seeds.

    Args:
        keys: that are swept.
        chosen: by variant, for those of which some value is ranked.
        sure: by variant, the share of replicates of the seeds in which the same value is the best of the variant;
            empty where one seed says nothing, and 1 where there is one value.
        among_all: the ranking of all variants at all values.
        contenders: by their names there.
        ranking: of the variants, each at its best value. In its intervals each replicate takes the best anew.
        results: the rows of that ranking.
    """

    keys: tuple[str, ...]
    chosen: Mapping[str, Contender]
    sure: Mapping[str, float]
    among_all: Ranking
    contenders: Mapping[str, Contender]
    ranking: Ranking
    results: Results

    @property
    def grid(self) -> Table:
        """The average rank of each variant at each value, among all; the best of a variant has a star."""
        values = sorted({c.values for c in self.contenders.values()}, key=lambda own: list(map(natural, own)))
        entries = {self.contenders[entry.variant]: entry for entry in self.among_all.entries}
        rows = []
        for entry in self.ranking.entries:
            cells = []
            for own in values:
                found = entries.get(contender := Contender(entry.variant, self.keys, own))
                star = "*" if contender == self.chosen.get(entry.variant) else ""
                known = found is not None and found.rank_all is not None
                cells.append(f"{found.rank_all:.2f}{star}" if found and known else "-" if found else "")
            rows.append([entry.variant, *cells])
        return Table(["variant", *(", ".join(Contender("", self.keys, own).said) for own in values)], rows)

    @property
    def table(self) -> Table:
        """`grid`, how sure each best value is, and the rank of each variant at its best value."""
        rows = []
        for row, entry in zip(self.grid.rows, self.ranking.entries, strict=True):
            sure = self.sure.get(entry.variant)
            rank = "" if entry.rank_all is None else f"{entry.rank_all:.2f}"
            rows.append([*row, "" if sure is None else f"{sure:.0%}", rank])
        return Table([*self.grid.header, "sure", "rank at best"], rows)

    @property
    def told(self) -> str:
        """What the table says."""
        sure = (
            "sure: the share of resampled seeds in which it stays the best"
            if self.sure
            else "one seed: not known how sure"
        )
        return f"Average ranks among all variants at all values, * at the best of each; {sure}."

    @property
    def left_out(self) -> list[Entry]:
        """Contenders without a rank of variants that have one at another value."""
        return [e for e in self.among_all.unranked if self.contenders[e.variant].variant in self.chosen]

    @property
    def at_the_edge(self) -> dict[str, list[str]]:
        """By key, the variants whose best value is the smallest or the largest number that was tried of several."""
        found: dict[str, list[str]] = {}
        for i, key in enumerate(self.keys):
            for variant, best in self.chosen.items():
                tried = {c.values[i] for c in self.contenders.values() if c.variant == variant}
                numbers = sorted(at for kind, at, _ in map(natural, tried) if kind == 0)
                if len(numbers) > 1 and natural(best.values[i])[1] in (numbers[0], numbers[-1]):
                    found.setdefault(key, []).append(variant)
        return found


def best(rows: Results, contenders: Mapping[str, Contender], objectives: tuple[Objective, ...] = DEFAULT) -> Best:
    """The best values, of rows with contenders in the place of variants (`swept.contenders`).

    A value without every setting of every seed is left out.

    Raises:
        ValueError: no row can be ranked.
    """
    among_all, table = rank(rows, objectives), Scored(rows, objectives)
    ranked = [entry.variant for entry in among_all.ranked]
    variants = list(dict.fromkeys(contenders[name].variant for name in ranked))
    of_variant = np.array([variants.index(contenders[name].variant) for name in ranked], dtype=np.int64)
    names, sure, noise = {}, {}, None
    if ranked:
        found = chosen(table.costs_of(ranked, table.settings), of_variant) if table.is_even else None
        places = [ranked.index(name) for name in ranked] if found is None else found.of_variant
        for variant, place in zip(variants, places, strict=False):
            names[variant] = ranked[int(place)]
        if found and found.share is not None:
            sure = {variant: float(found.share[int(place)]) for variant, place in zip(variants, places, strict=True)}
            noise = found.noise
    for entry in among_all.unranked:  # of variants without any rank, the one with the most settings
        names.setdefault(contenders[entry.variant].variant, entry.variant)
    back = {name: variant for variant, name in names.items()}
    kept = [replace(row, variant=back[row.variant]) for row in rows.rows if row.variant in back]
    results = Results(rows.columns, rows.metrics, kept)
    ranking = rank(results, objectives)
    if noise is not None:
        order = [variants.index(entry.variant) for entry in ranking.ranked]
        noise = Noise(noise.se[order], noise.low[order], noise.high[order], noise.before[np.ix_(order, order)])
        ranking = replace(ranking, entries=with_noise(ranking.ranked, noise) + ranking.unranked)
    chosen_of = {variant: contenders[names[variant]] for variant in variants}
    keys = next(iter(contenders.values())).keys
    return Best(keys, chosen_of, sure, among_all, contenders, ranking, results)
