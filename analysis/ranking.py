"""Average rank over settings, as in the paper's Table 1 (sec. 5.1): fronts of means over seeds, then their average."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from analysis.fronts import fronts
from analysis.objectives import DEFAULT, Objective, listed
from analysis.resampling import Noise, resampled
from analysis.results import Results, Row, belongs

Setting = tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """One variant in one setting: means over n seeds and their standard errors, by metric.

    A metric that is not finite in every seed has neither, and with one seed there are no errors.
    """

    mean: Mapping[str, float]
    se: Mapping[str, float]
    n: int

    @classmethod
    def of(cls, seeds: Sequence[Mapping[str, float]]) -> "Score":
        names = [name for name in seeds[0] if all(math.isfinite(scores.get(name, math.nan)) for scores in seeds)]
        values = {name: [scores[name] for scores in seeds] for name in names}
        mean = {name: fmean(own) for name, own in values.items()}
        errors = {name: standard_error(own, mean[name]) for name, own in values.items()}
        return cls(mean, {name: se for name, se in errors.items() if se is not None}, len(seeds))


@dataclass(frozen=True)
class Entry:
    """One variant: average fronts (1 is best), None where it has no rank or the table has no such setting.

    With several seeds, also what resampling them says (`analysis.resampling`), and the scores averaged over settings.
    """

    variant: str
    n_settings: int  # settings in which the variant is scored or has diverged, in every seed
    n_seeds: int  # seeds in which that holds of every setting
    reason: str  # why there is no rank; empty for ranked variants
    diverged: bool
    rank_all: float | None = None
    rank_5_steps: float | None = None
    rank_50_steps: float | None = None  # at guidance 5 where guidance is a column: what the paper's column must be
    rank_50_all: float | None = None
    rank_all_se: float | None = None  # deviation over the replicates
    rank_all_low: float | None = None  # 95 % interval
    rank_all_high: float | None = None
    place: int | None = None  # 1 + how many rank before it beyond noise; equal places are ties
    ties: tuple[str, ...] = ()  # the ranked variants that are neither before nor after it beyond noise
    mean: Score | None = None  # over all settings, within each seed first


@dataclass(frozen=True)
class Ranking:
    """Entries, ranked ones first, best first.

    `fronts[setting]` maps every variant that is scored or has diverged there, in any seed, to its front, or to None
    where it has no rank; `scores[setting]` maps every variant that is scored there to its means. `metrics` are the
    objectives, then what else the rows have.
    """

    entries: list[Entry]
    settings: list[Setting]
    seeds: list[str]
    fronts: dict[Setting, dict[str, int | None]]
    scores: dict[Setting, dict[str, Score]]
    objectives: tuple[Objective, ...]
    metrics: tuple[str, ...]

    @property
    def ranked(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.reason]

    @property
    def unranked(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.reason]

    @property
    def places(self) -> dict[str, str]:
        """Places as people write them, `1` or `2=`; empty where nothing is known of the noise."""
        known = [entry.place for entry in self.ranked if entry.place is not None]
        return {e.variant: f"{e.place}{'=' * (known.count(e.place) > 1)}" for e in self.ranked if e.place is not None}


def rank(results: Results, objectives: tuple[Objective, ...] = DEFAULT, more: Results | None = None) -> Ranking:
    """Rank every variant that is scored in all objectives, or has diverged, in all settings of all seeds.

    Scores are averaged over seeds before anything is sorted. Rows compete only inside one setting, and the protocol is
    part of it. A variant that has diverged in any seed has no mean: it takes the last front + 1 in each setting of its
    data set and backbone that it lacks a score in. A variant that lacks a setting of a seed has no rank, as averages
    over different settings or seeds do not compare, and is left out before sorting: it changes no other rank.

    `more` holds these rows and those of further seeds, which some of the variants have: the noise is read off them.

    Raises:
        ValueError: no row can be ranked.
    """
    table = Scored(results, objectives)
    found: dict[Setting, dict[str, int]] = {}
    for setting in table.settings:
        means = table.means[setting]
        whole = [variant for variant in table.complete if table.is_whole(variant, setting)]
        costs = [table.costs(means[variant].mean) for variant in whole]
        front = found[setting] = dict(zip(whole, fronts(costs), strict=True))
        late = max(front.values(), default=1) + 1  # never first, though all others lack a setting
        front.update({variant: late for variant in table.complete if variant not in front})

    entries = [table.entry(variant, rows, found) for variant, rows in table.rows_of.items()]
    entries.sort(key=lambda e: (e.rank_all is None, e.rank_all or -e.n_settings, e.variant))
    shown = {
        setting: {v: found[setting].get(v) for v in set.union(*(table.present[key] for key in table.keys_of[setting]))}
        for setting in table.settings
    }
    entries = _with_noise(entries, table, None if more is None else Scored(more, objectives))
    return Ranking(entries, table.settings, table.seeds, shown, table.means, objectives, results.shown(table.names))


class Scored:
    """Who is scored where, in which seeds."""

    def __init__(self, results: Results, objectives: tuple[Objective, ...]) -> None:
        self.columns, self.objectives = results.columns, objectives
        self.names = [objective.name for objective in objectives]
        results.check_numbers(self.names)
        contenders = [row for row in results.rows if not row.is_baseline]
        self.scored: dict[tuple[str, Setting], dict[str, Row]] = defaultdict(dict)
        for row in contenders:
            if row.is_ranked(self.names) and row.setting is not None:
                self.scored[row.seed, row.setting][row.variant] = row
        if not self.scored:
            have = [name for name in results.metrics if any(row.has([name]) for row in contenders)]
            told = f"; they have {listed(have)}: the report (python -m analysis.report) shows that" if have else ""
            raise ValueError(f"nothing to rank: no row of a trained variant has finite {listed(self.names)}{told}")
        self.seeds = sorted({seed for seed, _ in self.scored}, key=lambda seed: float(seed or 0))
        self.settings = sorted({setting for _, setting in self.scored})
        # what a seed was scored in is the same for all its variants, so seeds may differ in their settings
        self.keys_of = {k: [(s, k) for s in self.seeds if (s, k) in self.scored] for k in self.settings}

        diverged: dict[tuple[str, tuple[str, ...]], set[str]] = defaultdict(set)
        for row in contenders:
            if row.status == "diverged":
                diverged[row.seed, row.run_level].add(row.variant)
        self.present = {
            (seed, setting): set(rows).union(
                *(v for (s, where), v in diverged.items() if s == seed and belongs(where, setting, self.columns))
            )
            for (seed, setting), rows in self.scored.items()
        }
        self.complete = sorted(set.intersection(*self.present.values()))
        self.means: dict[Setting, dict[str, Score]] = {}
        for setting, keys in self.keys_of.items():
            own: dict[str, list[Mapping[str, float]]] = defaultdict(list)
            for key in keys:
                for variant, row in self.scored[key].items():
                    own[variant].append(row.scores)
            self.means[setting] = {variant: Score.of(seeds) for variant, seeds in own.items()}
        self.rows_of: dict[str, list[Row]] = defaultdict(list)
        for row in contenders:
            self.rows_of[row.variant].append(row)

    @property
    def is_even(self) -> bool:
        """Whether every seed has every setting."""
        return len(self.scored) == len(self.seeds) * len(self.settings)

    def costs(self, scores: Mapping[str, float]) -> list[float]:
        """The objectives, signed so that less is better."""
        return [objective.sign * scores[objective.name] for objective in self.objectives]

    def costs_of(self, variants: Sequence[str], settings: Sequence[Setting]) -> NDArray[np.float64]:
        """[V, seeds, settings, objectives]; NaN where a variant is not scored."""
        out = np.full((len(variants), len(self.seeds), len(settings), len(self.names)), np.nan)
        for s, seed in enumerate(self.seeds):
            for k, setting in enumerate(settings):
                rows = self.scored[seed, setting]
                for v, variant in enumerate(variants):
                    if row := rows.get(variant):
                        out[v, s, k] = self.costs(row.scores)
        return out

    def mean_of(self, variant: str) -> Score | None:
        """Over all settings, within each seed first; None where it lacks one."""
        rows = [[self.scored[seed, setting].get(variant) for setting in self.settings] for seed in self.seeds]
        own = [[row.scores for row in of_seed if row] for of_seed in rows]
        if any(len(of_seed) < len(self.settings) for of_seed in own):
            return None
        return Score.of([Score.of(of_seed).mean for of_seed in own])

    def is_whole(self, variant: str, setting: Setting) -> bool:
        """Scored in every seed of the setting."""
        return variant in self.means[setting] and self.means[setting][variant].n == len(self.keys_of[setting])

    def entry(self, variant: str, rows: list[Row], found: dict[Setting, dict[str, int]]) -> Entry:
        complete = [k for k in self.settings if all(variant in self.present[key] for key in self.keys_of[k])]
        seeds = [s for s in self.seeds if all(variant in self.present[s, k] for k in self.settings
                                              if (s, k) in self.present)]  # fmt: skip
        is_ranked = len(complete) == len(self.settings)

        def mean(**where: str) -> float | None:
            # a table without a guidance column has one guidance
            wanted = [(self.columns.index(name), value) for name, value in where.items() if name in self.columns]
            values = [found[k][variant] for k in self.settings if all(k[i] == value for i, value in wanted)]
            return fmean(values) if values else None

        out = Entry(
            variant=variant,
            n_settings=len(complete),
            n_seeds=len(seeds),
            reason="" if is_ranked else self._reason(rows, len(complete), len(seeds)),
            diverged=any(row.status == "diverged" for row in rows),
        )
        if not is_ranked:
            return out
        out = replace(out, rank_all=mean())
        if "steps" not in self.columns:
            return out
        rank_50 = mean(steps="50", guidance="5")
        return replace(out, rank_5_steps=mean(steps="5"), rank_50_steps=rank_50, rank_50_all=mean(steps="50"))

    def _reason(self, rows: list[Row], n_settings: int, n_seeds: int) -> str:
        ended = [row for row in rows if not row.is_ranked(self.names) and row.status not in ("", "done")]
        words = ((row.status, row.record.get("exception")) for row in ended)
        parts = sorted({f"{status} ({why})" if why else status for status, why in words})
        if any(row.setting is not None and not row.has(self.names) for row in rows):
            parts.append(f"{listed(self.names, 'or')} not finite")
        parts.append(f"{n_settings} of {len(self.settings)} settings")
        if len(self.seeds) > 1:
            parts.append(f"complete in {n_seeds} of {len(self.seeds)} seeds")
        return ", ".join(parts)


def _with_noise(entries: list[Entry], table: Scored, more: Scored | None) -> list[Entry]:
    """The entries with intervals, places and means over settings, where every seed has every setting."""
    ranked = [replace(entry, mean=table.mean_of(entry.variant)) for entry in entries if not entry.reason]
    entries = [*ranked, *entries[len(ranked) :]]
    if not (len(table.seeds) > 1 or more) or not table.is_even:
        return entries
    costs = table.costs_of([entry.variant for entry in ranked], table.settings)
    further = None
    if more and all((seed, setting) in more.scored for seed in more.seeds for setting in table.settings):
        further = more.costs_of(
            sorted({variant for _, rows in more.scored.items() for variant in rows}), table.settings
        )
    noise = resampled(costs, further)
    return entries if noise is None else with_noise(ranked, noise) + entries[len(ranked) :]


def with_noise(ranked: Sequence[Entry], noise: Noise) -> list[Entry]:
    """Ranked entries with what is known of the noise of each, in the same order."""
    apart = noise.before | noise.before.T
    # in the order of the ranks, so that nobody stands before one of a better place
    places = np.maximum.accumulate(noise.before.sum(0) + 1)
    return [
        replace(
            entry,
            rank_all_se=float(noise.se[i]),
            rank_all_low=float(noise.low[i]),
            rank_all_high=float(noise.high[i]),
            place=int(places[i]),
            ties=tuple(other.variant for j, other in enumerate(ranked) if j != i and not apart[i, j]),
        )
        for i, entry in enumerate(ranked)
    ]


def standard_error(values: Sequence[float], mean: float) -> float | None:
    """Of the mean; None for fewer than two values."""
    n = len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n) if n > 1 else None
