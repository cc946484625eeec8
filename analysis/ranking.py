"""Average rank over settings, as in the paper's Table 1 (sec. 5.1): fronts within each setting, then means."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from analysis.fronts import fronts
from analysis.results import RUN_LEVEL, Results, Row

Setting = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One variant: average fronts (1 is best), None where it has no rank or the table has no such setting."""

    variant: str
    rank_all: float | None
    rank_5_steps: float | None
    rank_50_steps: float | None  # at guidance 5 where guidance is a column: what the paper's column must be
    rank_50_all: float | None
    n_settings: int  # settings in which the variant is scored or has diverged, in every seed
    rank_all_se: float | None  # standard error of rank_all over seeds
    n_seeds: int
    reason: str  # why there is no rank; empty for ranked variants
    diverged: bool


@dataclass(frozen=True)
class Ranking:
    """Entries, ranked ones first, best first.

    `fronts[seed, setting]` maps every variant scored there to its front, or to None where the variant has no rank.
    """

    entries: list[Entry]
    settings: list[Setting]
    seeds: list[str]
    fronts: dict[tuple[str, Setting], dict[str, int | None]]

    @property
    def ranked(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.reason]

    @property
    def unranked(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.reason]


def rank(results: Results) -> Ranking:
    """Rank every variant that is scored, or has diverged, in all settings of all seeds.

    Rows compete only inside one (seed, setting), and the protocol is part of the setting. A diverged variant takes the
    last front + 1 in each setting of its data set and backbone that it has no score in. A variant that lacks a setting
    has no rank, as averages over different settings do not compare, and is left out before sorting, so that it changes
    no other rank.

    Raises:
        ValueError: no row can be ranked.
    """
    contenders = [row for row in results.rows if not row.is_baseline]
    by_setting: dict[tuple[str, Setting], list[Row]] = defaultdict(list)
    for row in contenders:
        if row.is_ranked and row.setting is not None:
            by_setting[row.seed, row.setting].append(row)
    if not by_setting:
        raise ValueError("nothing to rank: no row of a trained variant has a finite fid and clip")

    diverged = [row for row in contenders if row.status == "diverged"]
    present = {
        (seed, setting): {row.variant for row in rows}
        | {row.variant for row in diverged if row.seed == seed and _belongs(row, setting, results.columns)}
        for (seed, setting), rows in by_setting.items()
    }
    complete = set.intersection(*present.values())
    found: dict[tuple[str, Setting], dict[str, int]] = {}
    for key, rows in by_setting.items():
        whole = [row for row in rows if row.variant in complete]
        sorted_into = fronts([row.fid for row in whole], [row.clip for row in whole])
        front = found[key] = {row.variant: place for row, place in zip(whole, sorted_into, strict=True)}
        late = max(front.values(), default=1) + 1  # never first, though all others lack a setting
        front.update({variant: late for variant in complete if variant not in front})

    rows_of: dict[str, list[Row]] = defaultdict(list)
    for row in contenders:
        rows_of[row.variant].append(row)
    order = _Order(results, present, found)
    entries = [order.entry(variant, rows) for variant, rows in rows_of.items()]
    entries.sort(key=lambda e: (e.rank_all is None, e.rank_all or -e.n_settings, e.variant))
    shown = {key: {variant: found[key].get(variant) for variant in variants} for key, variants in present.items()}
    return Ranking(entries, order.settings, order.seeds, shown)


def _belongs(row: Row, setting: Setting, columns: tuple[str, ...]) -> bool:
    """Whether a run of this data set and backbone should have the setting; an empty cell says nothing."""
    where = dict(zip(columns, setting, strict=True))
    return all(not own or where.get(name, own) == own for name, own in zip(RUN_LEVEL, row.run_level, strict=True))


class _Order:
    """The settings to average over, and the averages."""

    def __init__(
        self,
        results: Results,
        present: dict[tuple[str, Setting], set[str]],
        found: dict[tuple[str, Setting], dict[str, int]],
    ) -> None:
        self.columns, self.present, self.found = results.columns, present, found
        self.seeds = sorted({seed for seed, _ in found})
        self.settings = sorted({setting for _, setting in found})
        # what a seed was scored in is the same for all its variants, so seeds may differ in their settings
        self.of_seed = {seed: [s for s in self.settings if (seed, s) in found] for seed in self.seeds}

    def entry(self, variant: str, rows: list[Row]) -> Entry:
        complete = [
            setting
            for setting in self.settings
            if all(variant in self.present[seed, setting] for seed in self.seeds if (seed, setting) in self.present)
        ]
        whole_seeds = [s for s in self.seeds if all(variant in self.present[s, k] for k in self.of_seed[s])]
        is_ranked = len(complete) == len(self.settings)
        per_seed = self._means(variant, self.settings) if is_ranked else []
        many = len(self.seeds) > 1
        return Entry(
            variant=variant,
            rank_all=fmean(per_seed) if per_seed else None,
            rank_5_steps=self._mean(variant, is_ranked, {"steps": "5"}),
            rank_50_steps=self._mean(variant, is_ranked, {"steps": "50", "guidance": "5"}),
            rank_50_all=self._mean(variant, is_ranked, {"steps": "50"}),
            n_settings=len(complete),
            rank_all_se=stdev(per_seed) / math.sqrt(len(per_seed)) if many and len(per_seed) > 1 else None,
            n_seeds=len(whole_seeds),
            reason="" if is_ranked else self._reason(rows, len(complete), len(whole_seeds)),
            diverged=any(row.status == "diverged" for row in rows),
        )

    def _mean(self, variant: str, is_ranked: bool, where: dict[str, str]) -> float | None:
        if "steps" not in self.columns or not is_ranked:
            return None
        # a table without a guidance column has one guidance
        wanted = [(self.columns.index(name), value) for name, value in where.items() if name in self.columns]
        means = self._means(variant, [s for s in self.settings if all(s[i] == value for i, value in wanted)])
        return fmean(means) if means else None

    def _means(self, variant: str, settings: Iterable[Setting]) -> list[float]:
        """The average front of each seed that has any of the settings."""
        chosen = list(settings)
        of_seed = ([self.found[s, k][variant] for k in chosen if (s, k) in self.found] for s in self.seeds)
        return [fmean(values) for values in of_seed if values]

    def _reason(self, rows: list[Row], n_settings: int, n_seeds: int) -> str:
        parts = sorted({row.status for row in rows if not row.is_ranked and row.status not in ("", "done")})
        scored = [row for row in rows if row.setting is not None]
        if any(not (math.isfinite(row.fid) and math.isfinite(row.clip)) for row in scored):
            parts.append("fid or clip not finite")
        parts.append(f"{n_settings} of {len(self.settings)} settings")
        if len(self.seeds) > 1:
            parts.append(f"complete in {n_seeds} of {len(self.seeds)} seeds")
        return ", ".join(parts)
